package checkpoint

import "testing"

func TestMachineIdle(t *testing.T) {
	m := newMachineIdle()
	for _, c := range []struct {
		line  string
		part  float64
		known bool
	}{
		{"cpu  100 0 100 700 100 0 0 0 0 0", 0, false}, // nothing to compare with
		{"cpu  160 0 120 710 110 0 0 0 50 0", 0.2, true},
		{"cpu  160 0 120 710 110 0 0 0 50 0", 0, false}, // no time has passed
		{"cpu  160 0 120 810 110 0 0 0 50 0", 1, true},
		{"cpu  160 0 120 810 100 0 0 20 50 0", 0, false}, // waiting for I/O went back
		{"cpu  170 10 130 810 100 10 10 30 50 0", 0, true},
		{"cpu  1 2 3", 0, false},
		{"cpu0 170 10 130 810 100 10 10 30", 0, false},
		{"cpu  170 10 130 x 100 10 10 30", 0, false},
		{"", 0, false},
	} {
		if part, known := m.parse([]byte(c.line)); known != c.known || known && (part < c.part-0.001 || part > c.part+0.001) {
			t.Errorf("%q: %v, %v, want %v, %v", c.line, part, known, c.part, c.known)
		}
	}
	live := newMachineIdle()
	live.part()
	if part, known := live.part(); known && (part < 0 || part > 1) {
		t.Errorf("idle part %v", part)
	}
}
