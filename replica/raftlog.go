package replica

import (
	"context"
	"fmt"
	"log/slog"
)

// raftLogger gives Raft's prose to slog: what is ordinary at debug, the rest at warn. Its panics are real ones and are
// caught by the host, which stops the group.
type raftLogger struct{ log *slog.Logger }

func (l raftLogger) Debug(...any)          {}
func (l raftLogger) Debugf(string, ...any) {}

func (l raftLogger) Info(v ...any) { l.log.Debug("raft", "message", fmt.Sprint(v...)) }
func (l raftLogger) Infof(format string, v ...any) {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		l.log.Debug("raft", "message", fmt.Sprintf(format, v...))
	}
}

func (l raftLogger) Warning(v ...any) { l.log.Warn("raft", "message", fmt.Sprint(v...)) }
func (l raftLogger) Warningf(format string, v ...any) {
	l.log.Warn("raft", "message", fmt.Sprintf(format, v...))
}

func (l raftLogger) Error(v ...any) { l.log.Error("raft", "message", fmt.Sprint(v...)) }
func (l raftLogger) Errorf(format string, v ...any) {
	l.log.Error("raft", "message", fmt.Sprintf(format, v...))
}

func (l raftLogger) Fatal(v ...any)                 { panic(fmt.Sprint(v...)) }
func (l raftLogger) Fatalf(format string, v ...any) { panic(fmt.Sprintf(format, v...)) }
func (l raftLogger) Panic(v ...any)                 { panic(fmt.Sprint(v...)) }
func (l raftLogger) Panicf(format string, v ...any) { panic(fmt.Sprintf(format, v...)) }
