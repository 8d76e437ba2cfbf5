package redis

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// documentation is the table of docs/commands.md.
func documentation() string {
	var b strings.Builder
	b.WriteString("| command | group | arguments | flags | since Redis | |\n|---|---|---|---|---|---|\n")
	table := newTable()
	for i := range table.list {
		cmd := &table.list[i]
		args := fmt.Sprint(max(cmd.arity, -cmd.arity) - 1)
		if cmd.arity < 0 {
			args += "+"
		}
		var names []string
		for _, f := range flagNames {
			if cmd.flags&f.flag != 0 {
				names = append(names, f.name)
			}
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %s |\n", strings.ToUpper(cmd.name), cmd.group, args, strings.Join(names, " "), cmd.since, cmd.summary)
	}
	return b.String()
}

// The documentation has every command as the server knows it. REPLICANODE_PRINT_COMMANDS=1 prints the table to paste.
func TestDocumentation(t *testing.T) {
	if os.Getenv("REPLICANODE_PRINT_COMMANDS") != "" {
		fmt.Print(documentation())
	}
	text, err := os.ReadFile("../../docs/commands.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), documentation()) {
		t.Errorf("docs/commands.md does not have this table:\n%s", documentation())
	}
}
