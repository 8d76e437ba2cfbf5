package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestLogLinesAreTidy(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		var out bytes.Buffer
		log, err := newLogger(&out, "info", format)
		if err != nil {
			t.Fatal(err)
		}
		var nothing error
		log.Info("from elsewhere\n", "reason", nothing, "error", errors.Join(errors.New("one"), fmt.Errorf("two\n")), "stack", "a\nb")
		got := out.String()
		for _, bad := range []string{"reason", "nil", "null", `elsewhere\n`, `one\ntwo`} {
			if strings.Contains(got, bad) {
				t.Errorf("%s: %q in %s", format, bad, got)
			}
		}
		for _, want := range []string{"one; two", `a\nb`} {
			if !strings.Contains(got, want) {
				t.Errorf("%s: no %q in %s", format, want, got)
			}
		}
	}
}
