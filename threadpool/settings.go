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

// ErrUnknownSetting is returned by Settings.Set and Reset for a field that there is not.
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

// at is where a field is, an *int, *int64, *float64 or *time.Duration, and whether "off" is 0 for it. It is nil when there is no such
// field.
func (s *Settings) at(field string) (place any, switchable bool) {
	switch field {
	case "workers":
		return &s.Workers, false
	case "low_limit":
		return &s.MaxRunning[Low], true
	case "common_limit":
		return &s.MaxRunning[Common], true
	case "high_limit":
		return &s.MaxRunning[High], true
	case "max_wait":
		return &s.Guards.MaxWait, true
	case "low_share":
		return &s.Guards.LowShare, true
	case "common_reserve":
		return &s.Guards.CommonReserve, true
	case "high_reserve":
		return &s.Guards.HighReserve, true
	case "io_rate":
		return &s.IO.BytesPerSecond, true
	case "io_low_floor":
		return &s.IO.LowFloor, false
	case "io_low_cap":
		return &s.IO.LowCap, true
	case "io_burst":
		return &s.IO.Burst, false
	}
	return nil, false
}

// Set reads one field from text, without checking its range. The fields are workers; low_limit, common_limit and high_limit
// (MaxRunning); max_wait, low_share, common_reserve and high_reserve (Guards); io_rate, io_low_floor, io_low_cap and io_burst
// (IO, in bytes a second and bytes). "off" is 0 for those that can be switched off: all but workers, io_low_floor and io_burst.
// With io_rate or io_low_cap the burst becomes the default for them, unless it is set afterwards.
func (s *Settings) Set(field, value string) (err error) {
	place, switchable := s.at(field)
	if switchable && value == "off" {
		value = "0"
	}
	want := "a whole number"
	switch p := place.(type) {
	case nil:
		return unknownSetting(field)
	case *int:
		*p, err = strconv.Atoi(value)
	case *int64:
		*p, err = strconv.ParseInt(value, 10, 64)
	case *float64:
		want = "a number"
		*p, err = strconv.ParseFloat(value, 64)
	case *time.Duration:
		want = "a duration such as 500ms or 30s"
		*p, err = time.ParseDuration(value)
	}
	if err != nil {
		return fmt.Errorf("%s must be %s", field, want)
	}
	if ratesBurst(field) {
		s.IO.Burst = 0
	}
	return nil
}

// Reset gives one field, named as for Set, the value that it has in other. With io_rate or io_low_cap the burst goes back too when both
// are again those of other, and becomes the default for them otherwise.
func (s *Settings) Reset(field string, other Settings) error {
	place, _ := s.at(field)
	from, _ := other.at(field)
	switch p := place.(type) {
	case nil:
		return unknownSetting(field)
	case *int:
		*p = *from.(*int)
	case *int64:
		*p = *from.(*int64)
	case *float64:
		*p = *from.(*float64)
	case *time.Duration:
		*p = *from.(*time.Duration)
	}
	if ratesBurst(field) {
		s.IO.Burst = 0
		if s.IO.BytesPerSecond == other.IO.BytesPerSecond && s.IO.LowCap == other.IO.LowCap {
			s.IO.Burst = other.IO.Burst
		}
	}
	return nil
}

// ratesBurst says whether the default burst depends on a field.
func ratesBurst(field string) bool { return field == "io_rate" || field == "io_low_cap" }

func unknownSetting(field string) error { return fmt.Errorf("%w: %q", ErrUnknownSetting, field) }

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
