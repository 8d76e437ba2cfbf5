package tasks

import (
	"fmt"
	"slices"
	"strings"
)

// changes are overrides of one spec, at most one of each field, in the order of fields.
type changes []Override

// with returns the changes and one more, which may be one that takes others back.
func (c changes) with(o Override) (changes, error) {
	if err := o.validate(); err != nil {
		return nil, &OverrideError{o.String(), err}
	}
	if o.Field == AllFields {
		return nil, nil
	}
	out := slices.DeleteFunc(slices.Clone(c), func(old Override) bool { return old.Field == o.Field })
	if o.Value == Default {
		return out, nil
	}
	place := func(o Override) int { return slices.Index(fields, o.Field) }
	i, _ := slices.BinarySearchFunc(out, o, func(a, b Override) int { return place(a) - place(b) })
	return slices.Insert(out, i, o), nil
}

// apply returns the spec with the changes if the result is valid.
func (c changes) apply(s Spec) (Spec, error) {
	for _, o := range c {
		if err := s.set(o.Field, o.Value); err != nil {
			return Spec{}, err
		}
	}
	s.EnsureDefaults()
	return s, s.Validate()
}

// effective leaves out the changes that change nothing.
func (c changes) effective(before, after *Spec) changes {
	return slices.DeleteFunc(c, func(o Override) bool { return before.get(o.Field) == after.get(o.Field) })
}

// String lists the changes as ParseOverride reads each.
func (c changes) String() string {
	var all []string
	for _, o := range c {
		all = append(all, o.String())
	}
	return strings.Join(all, " ")
}

// Origin is who changed a field of a spec.
type Origin uint8

// The origins, each going before those above it.
const (
	// ByFlag: Options.Overrides.
	ByFlag Origin = iota
	// ByOperator: Runner.Apply.
	ByOperator
	// ByController: the controller, as long as it is on and its reason lasts.
	ByController
	// ByFloor: Runner.SetFloor, which a node uses while a disk is low.
	ByFloor
)

var originNames = [...]string{"flag", "operator", "controller", "floor"}

// String returns a stable name.
func (o Origin) String() string {
	if int(o) < len(originNames) {
		return originNames[o]
	}
	return fmt.Sprintf("origin(%d)", uint8(o))
}

// MarshalText implements encoding.TextMarshaler.
func (o Origin) MarshalText() ([]byte, error) { return []byte(o.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler: it reads what MarshalText wrote.
func (o *Origin) UnmarshalText(text []byte) error {
	i := slices.Index(originNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("tasks: unknown origin %q", text)
	}
	*o = Origin(i)
	return nil
}

// Overridden is a field of a spec that somebody has changed, and what it would be without that change. When several have changed the
// same field, the last of them is in force.
type Overridden struct {
	Code    Code   `json:"code"`
	Field   string `json:"field"`
	Value   string `json:"value"`
	Instead string `json:"instead"`
	By      Origin `json:"by"`
}

// Overridden returns what of the specs has been changed by whom, in the order of the specs and of Fields.
func (r *Runner) Overridden() []Overridden {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := []Overridden{}
	for _, st := range r.order {
		for _, field := range fields {
			out = append(out, st.overridden(field)...)
		}
	}
	return out
}

// overridden lists the changes of one field.
func (s *codeState) overridden(field string) (out []Overridden) {
	note := func(by Origin, instead, value string) {
		out = append(out, Overridden{Code: s.code, Field: field, Value: value, Instead: instead, By: by})
	}
	has := func(c changes) bool { return slices.ContainsFunc(c, func(o Override) bool { return o.Field == field }) }
	if has(s.flags) {
		note(ByFlag, s.table.get(field), s.configured.get(field))
	}
	if has(s.operator) {
		note(ByOperator, s.configured.get(field), s.spec.get(field))
	}
	if field != "priority" {
		return out
	}
	level := s.spec.Priority
	if s.isLifted && s.lifted > level {
		note(ByController, level.String(), s.lifted.String())
		level = s.lifted
	}
	if s.floor > level {
		note(ByFloor, level.String(), s.floor.String())
	}
	return out
}
