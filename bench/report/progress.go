package report

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// Progress shows how far a benchmark is: a bar on a terminal, one line per step elsewhere. A nil Progress shows
// nothing. It is safe for concurrent use.
type Progress struct {
	mu    sync.Mutex
	w     io.Writer
	bar   *progressbar.ProgressBar // nil when w is no terminal
	total int
	done  int // steps begun
	start time.Time
}

// NewProgress starts showing a run of `steps` steps on w. A nil w shows nothing.
func NewProgress(w io.Writer, steps int) *Progress {
	if w == nil {
		return nil
	}
	p := &Progress{w: w, total: steps, start: time.Now()}
	if f, ok := w.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		p.bar = progressbar.NewOptions(steps,
			progressbar.OptionSetWriter(w),
			progressbar.OptionSetWidth(24),
			progressbar.OptionShowCount(),
			progressbar.OptionSetPredictTime(false),
			progressbar.OptionClearOnFinish(),
			progressbar.OptionShowDescriptionAtLineEnd(),
		)
	}
	return p
}

// Step says that the next step begins, and what it is. Steps beyond the announced number are shown as the last one.
func (p *Progress) Step(format string, args ...any) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	p.done = min(p.done+1, p.total)
	if p.bar != nil {
		p.bar.Describe(text)
		_ = p.bar.Set(max(0, p.done-1))
		return
	}
	fmt.Fprintf(p.w, "%6.1fs [%d/%d] %s\n", time.Since(p.start).Seconds(), p.done, p.total, text)
}

// Note prints a line that stays, between steps.
func (p *Progress) Note(format string, args ...any) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil {
		_ = p.bar.Clear()
	}
	fmt.Fprintf(p.w, format+"\n", args...)
	if p.bar != nil {
		_ = p.bar.RenderBlank()
	}
}

// Close removes the bar. The progress shows nothing afterwards.
func (p *Progress) Close() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.bar != nil {
		_ = p.bar.Finish()
	}
}
