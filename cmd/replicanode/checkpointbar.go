package main

import (
	"fmt"
	"io"
	"os"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"replicanode/node"
)

// checkpointBar shows on a terminal how far a checkpoint is; elsewhere it shows nothing.
type checkpointBar struct {
	request node.CheckpointRequest
	bar     *progressbar.ProgressBar // nil when there is no terminal, and after close
}

// barSteps is in how many steps the bar moves.
const barSteps = 1000

func newCheckpointBar(w io.Writer, request node.CheckpointRequest) *checkpointBar {
	b := &checkpointBar{request: request}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		b.bar = progressbar.NewOptions(barSteps,
			progressbar.OptionSetWriter(w),
			progressbar.OptionSetWidth(30),
			progressbar.OptionSetPredictTime(false),
			progressbar.OptionClearOnFinish(),
			progressbar.OptionShowDescriptionAtLineEnd(),
		)
	}
	return b
}

// show moves the bar.
func (b *checkpointBar) show(a node.CheckpointsAnswer) {
	if b.bar == nil {
		return
	}
	part, text := checkpointProgress(b.request, a)
	b.bar.Describe(text)
	// The last step would end the bar; close does that.
	_ = b.bar.Set(min(barSteps-1, int(part*barSteps)))
}

// checkpointProgress says how much of what was asked for is done, 0 to 1, and what there is to tell.
func checkpointProgress(request node.CheckpointRequest, a node.CheckpointsAnswer) (part float64, text string) {
	if request.All {
		run := a.Node.Running
		if run == nil {
			return 0, ""
		}
		text = fmt.Sprintf("%d of %d partitions, %s", run.Done, run.Partitions, size(run.Bytes))
		if run.Failed > 0 {
			text += fmt.Sprintf(", %d failed", run.Failed)
		}
		return run.Progress, text
	}
	for _, p := range a.Partitions {
		if p.Partition == *request.Partition && p.Running != nil {
			if p.Running.ExpectedRawBytes > 0 {
				part = float64(p.Running.RawBytes) / float64(p.Running.ExpectedRawBytes)
			}
			return part, fmt.Sprintf("%d entries, %s", p.Running.Entries, size(p.Running.Bytes))
		}
	}
	return 0, ""
}

// clear takes the bar away until it is shown again, for a line of text.
func (b *checkpointBar) clear() {
	if b.bar != nil {
		_ = b.bar.Clear()
	}
}

// close takes the bar away. It may be called again.
func (b *checkpointBar) close() {
	if b.bar != nil {
		_ = b.bar.Finish()
		b.bar = nil
	}
}
