package replica

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// badgerLogger gives badger's prose to slog. What badger tries again and again, for example while the disk is full, is said once
// in complaintEvery.
type badgerLogger struct {
	log *slog.Logger

	mu   sync.Mutex
	said map[string]time.Time // by format
	// unflushed is what badger has said last of a memtable that it could not write out, which it tries for ever.
	unflushed string
}

// flushFailed is how badger begins to say so.
const flushFailed = "error flushing memtable"

// flushFailure returns what was said of memtables since it was called last, empty when nothing was. l may be nil.
func (l *badgerLogger) flushFailure() string {
	if l == nil {
		return ""
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	said := l.unflushed
	l.unflushed = ""
	return said
}

const complaintEvery = 10 * time.Second

// due is whether a message of this format is to be logged now.
func (l *badgerLogger) due(format string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if last, ok := l.said[format]; ok && now.Sub(last) < complaintEvery {
		return false
	}
	if l.said == nil {
		l.said = make(map[string]time.Time)
	}
	l.said[format] = now
	return true
}

func (l *badgerLogger) Errorf(format string, v ...any) {
	if strings.HasPrefix(format, flushFailed) {
		l.mu.Lock()
		l.unflushed = fmt.Sprintf(format, v...)
		l.mu.Unlock()
	}
	if l.due(format) {
		l.log.Error("badger", "message", fmt.Sprintf(format, v...))
	}
}

func (l *badgerLogger) Warningf(format string, v ...any) {
	if l.due(format) {
		l.log.Warn("badger", "message", fmt.Sprintf(format, v...))
	}
}

func (l *badgerLogger) Infof(format string, v ...any) { l.Debugf(format, v...) }

func (l *badgerLogger) Debugf(format string, v ...any) {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		l.log.Debug("badger", "message", fmt.Sprintf(format, v...))
	}
}
