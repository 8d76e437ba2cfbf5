package node

import (
	"testing"
	"time"

	"replicanode/checkpoint"
)

// TestPruneRequestKeepsWhatItDoesNotName: what a request leaves out never makes it remove more than the node would.
func TestPruneRequestKeepsWhatItDoesNotName(t *testing.T) {
	own := checkpoint.Retention{KeepLast: 5, KeepFor: time.Hour}
	for _, tc := range []struct {
		in   PruneRequest
		want checkpoint.Retention
	}{
		{PruneRequest{}, own},
		{PruneRequest{Keep: 2}, checkpoint.Retention{KeepLast: 2}},
		{PruneRequest{KeepForSeconds: 60}, checkpoint.Retention{KeepLast: 5, KeepFor: time.Minute}},
		{PruneRequest{Keep: 1, KeepForSeconds: 60}, checkpoint.Retention{KeepLast: 1, KeepFor: time.Minute}},
	} {
		if got := tc.in.retention(own); got != tc.want {
			t.Errorf("%+v keeps %+v, expected %+v", tc.in, got, tc.want)
		}
	}
	endless := (&PruneRequest{KeepForSeconds: 1e300}).retention(own)
	if endless.KeepFor < 100*365*24*time.Hour || endless.Validate() != nil {
		t.Errorf("endless: %+v", endless)
	}
	for _, wrong := range []PruneRequest{{Keep: -1}, {KeepForSeconds: -1}} {
		if r := wrong.retention(own); r.Validate() == nil {
			t.Errorf("%+v is taken: %+v", wrong, r)
		}
	}
}
