package node

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestDiskThatDoesNotAnswerAtTheStart is named when the patience is over; the others, slow ones too, are used.
func TestDiskThatDoesNotAnswerAtTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hold := make(chan struct{})
		began := time.Now()
		found := inspectWith([]string{"hung", "slow", "quick"}, func(path string) *folder {
			switch path {
			case "hung":
				<-hold
			case "slow":
				time.Sleep(diskPatience - patienceTick/2)
			}
			return &folder{path: path}
		})
		if took := time.Since(began); took != diskPatience {
			t.Errorf("it took %v", took)
		}
		if err := found[0].err; err == nil || !strings.Contains(err.Error(), "does not answer within 5s") {
			t.Errorf("the hung disk: %v", err)
		}
		if found[1].err != nil || found[2].err != nil {
			t.Errorf("the others: %v, %v", found[1].err, found[2].err)
		}
		close(hold)
	})
}
