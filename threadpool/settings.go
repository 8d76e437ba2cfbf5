package threadpool

import (
	"errors"
	"fmt"
	"strconv"
	"time"
)

// Settings are what can be changed at run time for the whole pool, together or one by one.
type Settings struct {
	// Workers is the number of slots.
	Workers int `json:"workers"`
	// MaxRunning is as in Options.
	MaxRunning Levels `json:"max_running"`
	// Guards are the rules against starvation.
	Guards Guards `json:"guards"`
	// IO is the budget of bytes.
	IO IORate `json:"io"`
}

// ErrUnknownSetting is returned by Settings.Set for a field that there is not.
var ErrUnknownSetting = errors.New("unknown field of the pool's settings")

// Validate reports the first field out of range.
func (s *Settings) Validate() error {
	if err := validateWorkers(s.Workers); err != nil {
		return err
	}
	for l, n := range s.MaxRunning {
		if n < 0 {
			return fmt.Errorf("limit of level %s is negative", Priority(l))
		}
	}
	if err := s.Guards.Validate(); err != nil {
		return err
	}
	return s.IO.Validate()
}

// Set reads one field from text, without checking its range. The fields are workers; low_limit, common_limit and high_limit
// (MaxRunning); max_wait, low_share, common_reserve and high_reserve (Guards); io_rate, io_low_floor, io_low_cap and io_burst
// (IO, in bytes a second and bytes). "off" is 0 for those that can be switched off: all but workers, io_low_floor and io_burst.
func (s *Settings) Set(field, value string) (err error) {
	switch field {
	case "workers":
		s.Workers, err = strconv.Atoi(value)
	case "io_low_floor":
		s.IO.LowFloor, err = strconv.ParseFloat(value, 64)
	case "io_burst":
		s.IO.Burst, err = strconv.ParseInt(value, 10, 64)
	default:
		if value == "off" {
			value = "0"
		}
		return s.setSwitchable(field, value)
	}
	return wants(field, err)
}

func (s *Settings) setSwitchable(field, value string) (err error) {
	switch field {
	case "low_limit":
		s.MaxRunning[Low], err = strconv.Atoi(value)
	case "common_limit":
		s.MaxRunning[Common], err = strconv.Atoi(value)
	case "high_limit":
		s.MaxRunning[High], err = strconv.Atoi(value)
	case "max_wait":
		s.Guards.MaxWait, err = time.ParseDuration(value)
	case "low_share":
		s.Guards.LowShare, err = strconv.ParseFloat(value, 64)
	case "common_reserve":
		s.Guards.CommonReserve, err = strconv.Atoi(value)
	case "high_reserve":
		s.Guards.HighReserve, err = strconv.Atoi(value)
	case "io_rate":
		// The burst is the default for the new rate, unless it is set afterwards.
		s.IO.Burst = 0
		s.IO.BytesPerSecond, err = strconv.ParseInt(value, 10, 64)
	case "io_low_cap":
		s.IO.Burst = 0
		s.IO.LowCap, err = strconv.ParseInt(value, 10, 64)
	default:
		return fmt.Errorf("%w: %q", ErrUnknownSetting, field)
	}
	return wants(field, err)
}

// wants says what a field that could not be read from its text must be.
func wants(field string, err error) error {
	switch {
	case err == nil:
		return nil
	case field == "max_wait":
		return fmt.Errorf("%s must be a duration such as 500ms or 30s", field)
	case field == "low_share" || field == "io_low_floor":
		return fmt.Errorf("%s must be a number", field)
	default:
		return fmt.Errorf("%s must be a whole number", field)
	}
}

// Settings returns what is in force.
func (p *Pool) Settings() Settings {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.c.settings()
}

func (c *core) settings() Settings {
	return Settings{Workers: c.workers, MaxRunning: c.maxRunning, Guards: c.guards, IO: c.budget.rate}
}

// Apply puts all settings in force at one moment, or none with an error. Fields of IO that are zero get their defaults.
func (p *Pool) Apply(s Settings) error {
	s.IO.EnsureDefaults()
	if err := s.Validate(); err != nil {
		return fmt.Errorf("settings of the pool: %w", err)
	}
	p.change(func(c *core, now int64) {
		c.accrue(now)
		c.workers, c.maxRunning = s.Workers, s.MaxRunning
		if s.IO != c.budget.rate {
			c.budget.set(s.IO, now)
		}
		c.setGuards(s.Guards, now)
	})
	return nil
}
