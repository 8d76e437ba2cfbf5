package main

import (
	"testing"

	"replicanode/duplication"
)

func TestSkippedRangesAreShownNewestLast(t *testing.T) {
	ranges := []duplication.SkippedRange{{First: 1, Last: 50}, {First: 57, Last: 57}, {First: 60, Last: 61}, {First: 90, Last: 90}}
	for _, tc := range []struct {
		status duplication.PipelineStatus
		want   string
	}{
		{duplication.PipelineStatus{}, "0"},
		{duplication.PipelineStatus{SkippedDecrees: 51, SkippedRanges: 2, Skipped: ranges[:2]}, "51:1-50,57"},
		{duplication.PipelineStatus{SkippedDecrees: 54, SkippedRanges: 4, Skipped: ranges}, "54:…,57,60-61,90"},
	} {
		if got := skipped(tc.status); got != tc.want {
			t.Errorf("got %s, want %s", got, tc.want)
		}
	}
}
