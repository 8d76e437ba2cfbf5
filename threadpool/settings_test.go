package threadpool

import (
	"errors"
	"testing"
	"time"
)

// TestSettingsGoBackFieldByField: whatever a field was set to, Reset gives it back, and touches no other.
func TestSettingsGoBackFieldByField(t *testing.T) {
	from := Settings{
		Workers: 4, MaxRunning: Levels{3, 0, 2}, Guards: Guards{MaxWait: time.Minute, LowShare: 0.05, CommonReserve: 1, HighReserve: 1},
		IO: IORate{BytesPerSecond: 1 << 20, LowFloor: 0.2, LowCap: 1 << 18, Burst: 77_777},
	}
	for field, value := range map[string]string{
		"workers": "9", "low_limit": "1", "common_limit": "5", "high_limit": "off", "max_wait": "3s", "low_share": "off", "common_reserve": "2",
		"high_reserve": "0", "io_rate": "off", "io_low_floor": "0.5", "io_low_cap": "4096", "io_burst": "12",
	} {
		s := from
		if err := s.Set(field, value); err != nil || s == from {
			t.Errorf("%s=%s: %+v, %v", field, value, s, err)
		}
		if err := s.Reset(field, from); err != nil || s != from {
			t.Errorf("%s taken back: %+v, %v", field, s, err)
		}
	}
	for field, value := range map[string]string{"workers": "off", "io_burst": "off", "io_low_floor": "off", "max_wait": "3", "low_share": "x", "io_rate": "1MiB"} {
		s := from
		if err := s.Set(field, value); err == nil {
			t.Errorf("%s=%s was taken", field, value)
		}
	}
	s := from
	if err := s.Set("colour", "1"); !errors.Is(err, ErrUnknownSetting) {
		t.Errorf("an unknown field: %v", err)
	}
	if err := s.Reset("colour", from); !errors.Is(err, ErrUnknownSetting) {
		t.Errorf("an unknown field: %v", err)
	}
}

// TestBurstFollowsItsRates also when only one of them goes back.
func TestBurstFollowsItsRates(t *testing.T) {
	from := Settings{Workers: 1, IO: IORate{BytesPerSecond: 1 << 30, LowFloor: 0.1, LowCap: 1 << 20, Burst: 123}}
	s := from
	for _, change := range []func() error{
		func() error { return s.Set("io_rate", "10485760") },
		func() error { return s.Set("io_low_cap", "off") },
		func() error { return s.Reset("io_rate", from) },
	} {
		if err := change(); err != nil || s.IO.Burst != 0 {
			t.Errorf("%+v, %v: the burst is to be the default for the rates", s.IO, err)
		}
	}
	if err := s.Reset("io_low_cap", from); err != nil || s != from {
		t.Errorf("with both rates back: %+v, %v", s, err)
	}
}
