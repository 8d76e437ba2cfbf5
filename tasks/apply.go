package tasks

import (
	"errors"
	"fmt"
	"strings"
)

// Apply changes fields of specs at run time, all of them or, with an error, none; Default as a value takes back what Apply changed
// before. Tasks already in the pool obey new priorities and limits at once; new timeouts and slices apply to later submissions, a
// new period to the next interval.
func (r *Runner) Apply(overrides ...Override) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	next, err := r.changed(overrides)
	if err != nil {
		return err
	}
	before := map[*codeState]codeState{}
	for _, st := range r.order {
		n, ok := next[st]
		if !ok {
			continue
		}
		before[st] = *st
		st.spec, st.operator = n.spec, n.operator
		if err := r.install(st); err != nil {
			for st, old := range before {
				st.spec, st.operator = old.spec, old.operator
				err = errors.Join(err, r.install(st))
			}
			return err
		}
	}
	for _, o := range overrides {
		r.log.Info("task spec changed", "code", string(o.Code), "field", o.Field, "value", o.Value)
	}
	for p := range r.periodics {
		if old, ok := before[p.code]; ok && (old.spec.Period != p.code.spec.Period || old.spec.Jitter != p.code.spec.Jitter) {
			p.rearm()
		}
	}
	return nil
}

// proposal is what a code would have.
type proposal struct {
	spec     Spec
	operator changes
}

// changed works out what the codes that overrides name would have.
func (r *Runner) changed(overrides []Override) (map[*codeState]proposal, error) {
	next, given := map[*codeState]proposal{}, map[*codeState][]string{}
	for _, o := range overrides {
		st := r.codes[o.Code]
		if st == nil {
			return nil, &OverrideError{o.String(), fmt.Errorf("%w %q", ErrUnknownCode, string(o.Code))}
		}
		n, ok := next[st]
		if !ok {
			n.operator = st.operator
		}
		var err error
		if n.operator, err = n.operator.with(o); err != nil {
			return nil, err
		}
		next[st] = n
		given[st] = append(given[st], o.String())
	}
	for st, n := range next {
		var err error
		if n.spec, err = n.operator.apply(st.configured); err != nil {
			return nil, &OverrideError{strings.Join(given[st], " "), err}
		}
		n.operator = n.operator.effective(&st.configured, &n.spec)
		next[st] = n
	}
	return next, nil
}
