package tasks

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"replicanode/threadpool"
)

// ErrUnknownCode is returned for a code without a spec.
var ErrUnknownCode = errors.New("unknown task code")

// ErrUnknownField is returned for an override of a field that specs do not have.
var ErrUnknownField = errors.New("unknown field of a task")

// Override is one change of one field of one spec. The fields are priority, max_running, max_started, max_queued,
// timeout, slice, period, jitter, and retry.KIND.FIELD with KIND one of busy, timeout, conflict, other and FIELD one of
// initial, max, factor, max_attempts, max_elapsed.
type Override struct {
	Code  Code   `json:"code"`
	Field string `json:"field"`
	Value string `json:"value"`
}

// String writes the override as ParseOverride reads it.
func (o Override) String() string { return fmt.Sprintf("%s.%s=%s", o.Code, o.Field, o.Value) }

// OverrideError says which override was wrong, as it was given, and why.
type OverrideError struct {
	Override string
	Err      error
}

func (e *OverrideError) Error() string { return fmt.Sprintf("override %s: %v", e.Override, e.Err) }

// Unwrap returns the reason alone.
func (e *OverrideError) Unwrap() error { return e.Err }

// ParseOverride reads "code.field=value", or "code=level" for the priority. Errors are *OverrideError.
func ParseOverride(s string) (Override, error) {
	name, value, ok := strings.Cut(s, "=")
	if !ok || name == "" || value == "" {
		return Override{}, &OverrideError{s, errors.New("want code=level or code.field=value")}
	}
	code, field, ok := strings.Cut(name, ".")
	if !ok {
		field = "priority"
	}
	o := Override{Code: Code(code), Field: field, Value: value}
	probe := Spec{Code: o.Code}
	if err := o.Code.validate(); err != nil {
		return Override{}, &OverrideError{s, err}
	}
	if err := probe.set(o.Field, o.Value); err != nil {
		return Override{}, &OverrideError{s, err}
	}
	return o, nil
}

// ApplyOverrides returns specs with the overrides applied in order, or the first error, an *OverrideError.
func ApplyOverrides(specs []Spec, overrides []Override) ([]Spec, error) {
	out := append([]Spec(nil), specs...)
	for _, o := range overrides {
		found := false
		for i := range out {
			if out[i].Code != o.Code {
				continue
			}
			found = true
			if err := out[i].apply(o); err != nil {
				return nil, err
			}
		}
		if !found {
			return nil, &OverrideError{o.String(), unknownCode(o.Code, out)}
		}
	}
	return out, nil
}

// unknownCode is ErrUnknownCode with the codes that there are.
func unknownCode(code Code, specs []Spec) error {
	known := make([]string, len(specs))
	for i, s := range specs {
		known[i] = string(s.Code)
	}
	slices.Sort(known)
	return fmt.Errorf("%w %q; the codes are %s", ErrUnknownCode, string(code), strings.Join(known, ", "))
}

// apply changes one field if the result is valid.
func (s *Spec) apply(o Override) error {
	changed := *s
	if err := changed.set(o.Field, o.Value); err != nil {
		return &OverrideError{o.String(), err}
	}
	changed.EnsureDefaults()
	if err := changed.Validate(); err != nil {
		return &OverrideError{o.String(), err}
	}
	*s = changed
	return nil
}

// set parses value into the named field, without checking its range.
func (s *Spec) set(field, value string) (err error) {
	switch field {
	case "priority":
		s.Priority, err = threadpool.ParsePriority(value)
	case "max_running":
		s.MaxRunning, err = strconv.Atoi(value)
	case "max_started":
		s.MaxStarted, err = strconv.Atoi(value)
	case "max_queued":
		s.MaxQueued, err = strconv.Atoi(value)
	case "timeout":
		s.Timeout, err = time.ParseDuration(value)
	case "slice":
		s.Slice, err = time.ParseDuration(value)
	case "period":
		s.Period, err = time.ParseDuration(value)
	case "jitter":
		s.Jitter, err = strconv.ParseFloat(value, 64)
	default:
		return s.Retry.set(field, value)
	}
	if err != nil {
		return wants(field)
	}
	return nil
}

func (p *RetryPolicy) set(path, value string) (err error) {
	parts := strings.Split(path, ".")
	if len(parts) != 3 || parts[0] != "retry" {
		return fmt.Errorf("%w: %q", ErrUnknownField, path)
	}
	kind, err := ParseErrorKind(parts[1])
	if err != nil || p.For(kind) == nil {
		return fmt.Errorf("%w: %q", ErrUnknownField, path)
	}
	b := p.For(kind)
	switch parts[2] {
	case "initial":
		b.Initial, err = time.ParseDuration(value)
	case "max":
		b.Max, err = time.ParseDuration(value)
	case "factor":
		b.Factor, err = strconv.ParseFloat(value, 64)
	case "max_attempts":
		b.MaxAttempts, err = strconv.Atoi(value)
	case "max_elapsed":
		b.MaxElapsed, err = time.ParseDuration(value)
	default:
		return fmt.Errorf("%w: %q", ErrUnknownField, path)
	}
	if err != nil {
		return wants(path)
	}
	return nil
}

// wants is the error for a value that the named field can't be read from.
func wants(field string) error {
	switch field[strings.LastIndexByte(field, '.')+1:] {
	case "priority":
		return errors.New("the level must be low, common or high")
	case "max_running", "max_started", "max_queued", "max_attempts":
		return fmt.Errorf("%s must be a whole number", field)
	case "jitter", "factor":
		return fmt.Errorf("%s must be a number", field)
	default:
		return fmt.Errorf("%s must be a duration such as 500ms, 30s or 5m", field)
	}
}
