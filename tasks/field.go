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

// fields are the names of a spec's fields that can be changed.
var fields = fieldNames()

func fieldNames() []string {
	names := []string{"priority", "max_running", "max_started", "max_queued", "timeout", "slice", "period", "jitter"}
	for k := Other; k < Permanent; k++ {
		for _, f := range []string{"initial", "max", "factor", "max_attempts", "max_elapsed"} {
			names = append(names, fmt.Sprintf("retry.%s.%s", k, f))
		}
	}
	return names
}

// Fields returns the names of a spec's fields that can be changed: priority, max_running, max_started, max_queued, timeout, slice,
// period, jitter, and retry.KIND.FIELD with KIND one of busy, timeout, conflict, other and FIELD one of initial, max, factor,
// max_attempts, max_elapsed.
func Fields() []string { return slices.Clone(fields) }

// get writes the named field, one of fields, as set reads it.
func (s *Spec) get(field string) string {
	switch field {
	case "priority":
		return s.Priority.String()
	case "max_running":
		return strconv.Itoa(s.MaxRunning)
	case "max_started":
		return strconv.Itoa(s.MaxStarted)
	case "max_queued":
		return strconv.Itoa(s.MaxQueued)
	case "timeout":
		return s.Timeout.String()
	case "slice":
		return s.Slice.String()
	case "period":
		return s.Period.String()
	case "jitter":
		return strconv.FormatFloat(s.Jitter, 'g', -1, 64)
	default:
		return s.Retry.get(field)
	}
}

func (p *RetryPolicy) get(path string) string {
	b, field := p.at(path)
	switch {
	case b == nil:
		return ""
	case field == "initial":
		return b.Initial.String()
	case field == "max":
		return b.Max.String()
	case field == "factor":
		return strconv.FormatFloat(b.Factor, 'g', -1, 64)
	case field == "max_attempts":
		return strconv.Itoa(b.MaxAttempts)
	default:
		return b.MaxElapsed.String()
	}
}

// at finds the schedule and the field of it that retry.KIND.FIELD names.
func (p *RetryPolicy) at(path string) (b *Backoff, field string) {
	parts := strings.Split(path, ".")
	if len(parts) != 3 || parts[0] != "retry" {
		return nil, ""
	}
	kind, err := ParseErrorKind(parts[1])
	if err != nil {
		return nil, ""
	}
	return p.For(kind), parts[2]
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
	b, field := p.at(path)
	if b == nil {
		return fmt.Errorf("%w: %q", ErrUnknownField, path)
	}
	switch field {
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
