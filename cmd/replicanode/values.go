package main

import (
	"errors"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"replicanode/node"
)

// off is how a rule is turned off on the command line; 0 means the same. Options use 0 for "the default" and a negative value for
// "off".
const off = "off"

// offDuration is a duration that can be turned off.
type offDuration struct{ d time.Duration }

func (v *offDuration) Set(s string) error {
	if s == off || s == "0" {
		v.d = -1
		return nil
	}
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		return errors.New("must be a duration such as 30s or 5m, or off")
	case d < 0:
		return errors.New("must not be negative; off turns it off")
	case d == 0:
		d = -1
	}
	v.d = d
	return nil
}

func (v *offDuration) String() string {
	if v.d < 0 {
		return off
	}
	return shortDuration(v.d)
}

// Get implements flag.Getter.
func (v *offDuration) Get() any { return v.d }

// Placeholder is shown in the help.
func (*offDuration) Placeholder() string { return "DURATION" }

// offShare is a part of 1 that can be turned off.
type offShare struct{ share float64 }

func (v *offShare) Set(s string) error {
	if s == off {
		v.share = -1
		return nil
	}
	f, err := strconv.ParseFloat(s, 64)
	switch {
	case err != nil || math.IsNaN(f):
		return errors.New("must be a number such as 0.05, or off")
	case f < 0:
		return errors.New("must not be negative; off turns it off")
	case f == 0:
		f = -1
	}
	v.share = f
	return nil
}

func (v *offShare) String() string {
	if v.share < 0 {
		return off
	}
	return strconv.FormatFloat(v.share, 'g', -1, 64)
}

// Get implements flag.Getter.
func (v *offShare) Get() any { return v.share }

// Placeholder is shown in the help.
func (*offShare) Placeholder() string { return "SHARE" }

// offCount is a number that can be turned off by name; 0 is not the same here.
type offCount struct{ n int }

func (v *offCount) Set(s string) error {
	if s == off {
		v.n = -1
		return nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return errors.New("must be a whole number and not negative, or off")
	}
	v.n = n
	return nil
}

func (v *offCount) String() string {
	if v.n < 0 {
		return off
	}
	return strconv.Itoa(v.n)
}

// Get implements flag.Getter.
func (v *offCount) Get() any { return v.n }

// Placeholder is shown in the help.
func (*offCount) Placeholder() string { return "N" }

// byteSize is a number of bytes, also in KiB, MiB, GiB and TiB.
type byteSize struct {
	n      int64
	canOff bool // 0 and off mean none, -1
}

func (v *byteSize) Set(s string) error {
	if v.canOff && (s == off || s == "0") {
		v.n = -1
		return nil
	}
	digits, unit := s, int64(1)
	for i, name := range byteUnits[1:5] {
		if rest, ok := strings.CutSuffix(s, name); ok {
			digits, unit = strings.TrimSpace(rest), int64(1)<<(10*(i+1))
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	switch {
	case err != nil:
		return errors.New("must be a number of bytes such as 4194304 or 4MiB")
	case n < 0 && v.canOff:
		return errors.New("must not be negative; off turns it off")
	case n < 0:
		return errors.New("must not be negative")
	case n > math.MaxInt64/unit:
		return errors.New("is more bytes than any disk has")
	}
	v.n = n * unit
	return nil
}

func (v *byteSize) String() string {
	if v.n < 0 {
		return off
	}
	n, unit := v.n, 0
	for n != 0 && n%1024 == 0 && unit < 4 {
		n, unit = n/1024, unit+1
	}
	if unit == 0 {
		return strconv.FormatInt(n, 10)
	}
	return strconv.FormatInt(n, 10) + byteUnits[unit]
}

// Get implements flag.Getter.
func (v *byteSize) Get() any { return v.n }

// Placeholder is shown in the help.
func (*byteSize) Placeholder() string { return "BYTES" }

// atMost refuses a number that does not fit where it goes: cut to size, it would mean another one.
func atMost(flag string, most uint) func(*cli.Context, uint) error {
	return func(_ *cli.Context, v uint) error {
		if v > most {
			return &node.FlagError{Flag: flag, Value: strconv.FormatUint(uint64(v), 10), Reason: "must be at most " + strconv.FormatUint(uint64(most), 10)}
		}
		return nil
	}
}

func durationOrOff(c *cli.Context, flag string) time.Duration {
	if v, ok := c.Generic(flag).(*offDuration); ok {
		return v.d
	}
	return 0
}

func shareOrOff(c *cli.Context, flag string) float64 {
	if v, ok := c.Generic(flag).(*offShare); ok {
		return v.share
	}
	return 0
}

func countOrOff(c *cli.Context, flag string) int {
	if v, ok := c.Generic(flag).(*offCount); ok {
		return v.n
	}
	return 0
}

func bytesOf(c *cli.Context, flag string) int64 {
	if v, ok := c.Generic(flag).(*byteSize); ok {
		return v.n
	}
	return 0
}

// invalidValue matches what the flag parser says of a value that it can't read.
var invalidValue = regexp.MustCompile(`(?s)^invalid (?:boolean )?value "(.*)" for (?:flag )?-([^ :]+): (.*)$`)

// valueError turns the flag parser's error about a value into one that names the flag as it is typed and says what it takes.
func valueError(c *cli.Command, err error) error {
	m := invalidValue.FindStringSubmatch(err.Error())
	if m == nil {
		return err
	}
	reason := m[3]
	switch findFlag(c, m[2]).(type) {
	case *cli.IntFlag, *cli.Int64Flag:
		reason = "must be a whole number"
	case *cli.UintFlag, *cli.Uint64Flag:
		reason = "must be a whole number and not negative"
	case *cli.Float64Flag:
		reason = "must be a number"
	case *cli.DurationFlag:
		reason = "must be a duration such as 500ms, 30s or 5m"
	case *cli.BoolFlag:
		reason = "must be true or false; the flag alone means true"
	}
	return &node.FlagError{Flag: m[2], Value: `"` + m[1] + `"`, Reason: reason}
}
