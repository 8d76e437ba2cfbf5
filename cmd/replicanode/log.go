package main

import (
	"io"
	"log/slog"
	"strings"

	"replicanode/node"
)

func newLogger(w io.Writer, level, format string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, &node.FlagError{Flag: "log-level", Value: level, Reason: "must be debug, info, warn or error"}
	}
	opts := &slog.HandlerOptions{Level: l, ReplaceAttr: tidy}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, opts)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, opts)), nil
	}
	return nil, &node.FlagError{Flag: "log-format", Value: format, Reason: "must be text or json"}
}

// tidy keeps the log readable whoever writes to it: values that are nothing are left out, and messages and errors are one line. Stacks
// keep their lines.
func tidy(_ []string, a slog.Attr) slog.Attr {
	switch v := a.Value.Any().(type) {
	case nil:
		return slog.Attr{}
	case error:
		a.Value = slog.StringValue(oneLine(v.Error()))
	case string:
		if a.Key != "stack" {
			a.Value = slog.StringValue(oneLine(v))
		}
	}
	return a
}

func oneLine(s string) string {
	if !strings.Contains(s, "\n") {
		return s
	}
	return strings.ReplaceAll(strings.TrimSpace(s), "\n", "; ")
}
