package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"

	"replicanode/node"
)

const flagsPage = "../../docs/flags.md"

// TestFlagsPageIsInStep with the commands. With REPLICANODE_UPDATE=1 the page is written instead.
func TestFlagsPageIsInStep(t *testing.T) {
	var page bytes.Buffer
	page.WriteString(`# Flags

Every command and its flags, as ` + "`replicanode COMMAND --help`" + ` shows them. Flags may stand before or after a command's arguments. Sizes are
bytes or carry a unit (4194304, 4096KiB, 4MiB); durations are like 500ms, 30s or 1h30m; ` + "`off`" + ` turns off what can be turned off.
A value that can't work is refused with exit code 2 and one line that names flag and value, before anything is bound or written.

The last column of ` + "`replicanode run`" + ` names, for every limit, the metric that shows how much of it is taken or what was refused;
` + "`replicanode_node_limit{flag=\"…\"}`" + ` is the limit itself.
`)
	watch := map[string]string{}
	o := node.DefaultOptions()
	for _, l := range o.Limits() {
		watch[l.Flag] = "`" + l.Usage + "`"
	}
	everyCommand(func(path []string, c *cli.Command) {
		fmt.Fprintf(&page, "\n## replicanode %s\n\n%s.\n", strings.TrimSpace(strings.Join(path, " ")+" "+c.ArgsUsage), capital(c.Usage))
		for _, group := range groups(c.Flags) {
			if group.name != "Flags" {
				fmt.Fprintf(&page, "\n### %s\n", group.name)
			}
			header := "\n| flag | default | what it does |\n|---|---|---|\n"
			if c.Name == "run" && len(path) == 1 {
				header = "\n| flag | default | what it does | watch |\n|---|---|---|---|\n"
			}
			page.WriteString(header)
			for _, f := range group.flags {
				doc, ok := f.(cli.DocGenerationFlag)
				if !ok {
					t.Fatalf("%v: flag %T has no help", path, f)
				}
				word, usage := placeholder(f, doc.GetUsage())
				if required, ok := f.(cli.RequiredFlag); ok && required.IsRequired() {
					usage += " (required)"
				}
				if env := doc.GetEnvVars(); len(env) > 0 {
					usage += " (or `" + strings.Join(env, "`, `") + "` in the environment)"
				}
				fmt.Fprintf(&page, "| `%s` | %s | %s |", strings.TrimSpace("--"+f.Names()[0]+" "+word), strings.ReplaceAll(defaultText(f), "|", `\|`), strings.ReplaceAll(usage, "|", `\|`))
				if c.Name == "run" && len(path) == 1 {
					fmt.Fprintf(&page, " %s |", watch[f.Names()[0]])
				}
				page.WriteString("\n")
			}
		}
	})
	if os.Getenv("REPLICANODE_UPDATE") != "" {
		if err := os.WriteFile(flagsPage, page.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	have, err := os.ReadFile(flagsPage)
	if err != nil || !bytes.Equal(have, page.Bytes()) {
		t.Fatalf("docs/flags.md is not in step with the commands (%v): REPLICANODE_UPDATE=1 go test ./cmd/replicanode -run FlagsPage", err)
	}
}

func capital(s string) string { return strings.ToUpper(s[:1]) + s[1:] }

// TestEveryLimitHasAFlag of run, with the default that the node has.
func TestEveryLimitHasAFlag(t *testing.T) {
	flags := map[string]cli.Flag{}
	for _, f := range runFlags() {
		flags[f.Names()[0]] = f
	}
	o := node.DefaultOptions()
	for _, l := range o.Limits() {
		if flags[l.Flag] == nil {
			t.Errorf("--%s is not a flag of run", l.Flag)
		} else if defaultText(flags[l.Flag]) == "" {
			t.Errorf("--%s: the help shows no default", l.Flag)
		}
	}
	operations, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, word := range []string{"flags.md", "replicanode_node_limit"} {
		if !bytes.Contains(operations, []byte(word)) {
			t.Errorf("docs/operations.md does not tell of %s", word)
		}
	}
}
