package tasks

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// ErrUnknownCode is returned for a code without a spec.
var ErrUnknownCode = errors.New("unknown task code")

// ErrUnknownField is returned for an override of a field that specs do not have.
var ErrUnknownField = errors.New("unknown field of a task")

// What an Override names to go back: Default as its value takes back what was changed of the field, with AllFields as its
// field, of every field.
const (
	Default   = "default"
	AllFields = "*"
)

// Override is one change of one field of one spec. The fields are those of Fields. The value Default takes a change back.
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
	o := Override{Code: Code(code), Field: strings.ToLower(field), Value: value}
	if err := o.Code.validate(); err != nil {
		return Override{}, &OverrideError{s, err}
	}
	if err := o.validate(); err != nil {
		return Override{}, &OverrideError{s, err}
	}
	return o, nil
}

// validate checks that the field exists and can be read from the value, not the value's range.
func (o Override) validate() error {
	switch {
	case o.Field == AllFields && o.Value != Default:
		return fmt.Errorf("all fields together can only be set to %s", Default)
	case o.Field == AllFields:
		return nil
	case !slices.Contains(fields, o.Field):
		return fmt.Errorf("%w: %q", ErrUnknownField, o.Field)
	case o.Value == Default:
		return nil
	}
	return new(Spec).set(o.Field, o.Value)
}

// ApplyOverrides returns specs with the overrides applied in order, or the first error, an *OverrideError.
func ApplyOverrides(specs []Spec, overrides []Override) ([]Spec, error) {
	out := append([]Spec(nil), specs...)
	made := make([]changes, len(specs))
	for _, o := range overrides {
		i := slices.IndexFunc(out, func(s Spec) bool { return s.Code == o.Code })
		if i < 0 {
			return nil, &OverrideError{o.String(), unknownCode(o.Code, out)}
		}
		var err error
		if made[i], err = made[i].with(o); err != nil {
			return nil, err
		}
		if out[i], err = made[i].apply(specs[i]); err != nil {
			return nil, &OverrideError{o.String(), err}
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
