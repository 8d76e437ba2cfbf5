package node

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// warningPause is how long a warning about one remote stands for all partitions' warnings of its kind about it.
const warningPause = 10 * time.Second

// sparseHandler passes on one warning of a kind in a while: when a remote is away, every partition says so at every attempt, and all
// of them say the same. A kind is a message with the value of one attribute. The next line that is passed on counts those that were
// not, as "suppressed". What is not a warning is always passed on.
type sparseHandler struct {
	next  slog.Handler
	by    string // the attribute's name
	value string // its value, when With gave it
	pause time.Duration
	seen  *sparseKinds
}

type sparseKind struct{ message, value string }

type sparseState struct {
	at         time.Time
	suppressed int
}

// maxSparseKinds bounds what is remembered; beyond it everything is passed on.
const maxSparseKinds = 1024

type sparseKinds struct {
	mu    sync.Mutex
	kinds map[sparseKind]*sparseState
}

func newSparseHandler(next slog.Handler, by string, pause time.Duration) *sparseHandler {
	return &sparseHandler{next: next, by: by, pause: pause, seen: &sparseKinds{kinds: map[sparseKind]*sparseState{}}}
}

// Enabled implements slog.Handler.
func (h *sparseHandler) Enabled(ctx context.Context, level slog.Level) bool {
	return h.next.Enabled(ctx, level)
}

// Handle implements slog.Handler.
func (h *sparseHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Level != slog.LevelWarn {
		return h.next.Handle(ctx, r)
	}
	value := h.value
	r.Attrs(func(a slog.Attr) bool {
		if a.Key == h.by {
			value = a.Value.String()
		}
		return true
	})
	suppressed, pass := h.seen.pass(sparseKind{r.Message, value}, r.Time, h.pause)
	if !pass {
		return nil
	}
	if suppressed > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Int("suppressed", suppressed))
	}
	return h.next.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h *sparseHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	out := *h
	out.next = h.next.WithAttrs(attrs)
	if i := slices.IndexFunc(attrs, func(a slog.Attr) bool { return a.Key == h.by }); i >= 0 {
		out.value = attrs[i].Value.String()
	}
	return &out
}

// WithGroup implements slog.Handler.
func (h *sparseHandler) WithGroup(name string) slog.Handler {
	out := *h
	out.next = h.next.WithGroup(name)
	return &out
}

// pass reports whether a line of the kind may go on at now, and how many before it did not.
func (k *sparseKinds) pass(kind sparseKind, now time.Time, pause time.Duration) (suppressed int, pass bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.kinds[kind]
	if s == nil {
		if len(k.kinds) < maxSparseKinds {
			k.kinds[kind] = &sparseState{at: now}
		}
		return 0, true
	}
	if d := now.Sub(s.at); d >= 0 && d < pause {
		s.suppressed++
		return 0, false
	}
	suppressed = s.suppressed
	s.at, s.suppressed = now, 0
	return suppressed, true
}
