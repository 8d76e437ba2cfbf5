package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
)

const (
	helpColumn = 34  // where the descriptions of flags begin
	helpWidth  = 118 // where lines are broken
)

// showHelp prints the help of the program, of a group of commands, or of a command.
func showHelp(w io.Writer, app *cli.App, in invocation) error {
	var b strings.Builder
	switch {
	case in.command == nil:
		fmt.Fprintf(&b, "%s - %s\n\nUsage: %s COMMAND [FLAGS] [ARGUMENTS]\n", in.path, app.Usage, in.path)
		helpCommands(&b, app.Commands)
		fmt.Fprintf(&b, "\n%s COMMAND --help shows a command's flags.\n", in.path)
	case len(in.command.Subcommands) > 0:
		fmt.Fprintf(&b, "%s - %s\n\nUsage: %s COMMAND [FLAGS] [ARGUMENTS]\n", in.path, in.command.Usage, in.path)
		helpCommands(&b, in.command.Subcommands)
		fmt.Fprintf(&b, "\n%s COMMAND --help shows a command's flags.\n", in.path)
	default:
		helpCommand(&b, in)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func helpCommands(b *strings.Builder, commands []*cli.Command) {
	b.WriteString("\nCommands\n")
	for _, c := range commands {
		entry(b, c.Name, c.Usage, 16)
	}
}

func helpCommand(b *strings.Builder, in invocation) {
	usage := in.path
	if len(in.command.Flags) > 0 {
		usage += " [FLAGS]"
	}
	if in.command.ArgsUsage != "" {
		usage += " " + in.command.ArgsUsage
	}
	fmt.Fprintf(b, "%s - %s\n\nUsage: %s\n", in.path, in.command.Usage, usage)
	if in.command.Description != "" {
		fmt.Fprintf(b, "\n%s\n", in.command.Description)
	}
	for _, group := range groups(in.command.Flags) {
		fmt.Fprintf(b, "\n%s\n", group.name)
		for _, f := range group.flags {
			helpFlag(b, f)
		}
	}
}

type flagGroup struct {
	name  string
	flags []cli.Flag
}

// groups sorts flags by category, in the order in which the categories are first named.
func groups(flags []cli.Flag) []flagGroup {
	var out []flagGroup
	at := map[string]int{}
	for _, f := range flags {
		name := "Flags"
		if c, ok := f.(cli.CategorizableFlag); ok && c.GetCategory() != "" {
			name = c.GetCategory()
		}
		if _, ok := at[name]; !ok {
			at[name] = len(out)
			out = append(out, flagGroup{name: name})
		}
		out[at[name]].flags = append(out[at[name]].flags, f)
	}
	return out
}

func helpFlag(b *strings.Builder, f cli.Flag) {
	doc, ok := f.(cli.DocGenerationFlag)
	if !ok {
		return
	}
	placeholder, usage := placeholder(f, doc.GetUsage())
	name := dashed(f.Names()[0])
	if placeholder != "" {
		name += " " + placeholder
	}
	if required, ok := f.(cli.RequiredFlag); ok && required.IsRequired() {
		usage += " (required)"
	}
	if text := defaultText(f); text != "" {
		usage += " (default: " + text + ")"
	}
	if env := doc.GetEnvVars(); len(env) > 0 {
		usage += " [$" + strings.Join(env, ", $") + "]"
	}
	entry(b, name, usage, helpColumn)
}

// entry writes a name and its description, broken into lines and set at a column.
func entry(b *strings.Builder, name, text string, column int) {
	line := "  " + name
	if len(line) > column-2 {
		b.WriteString(line + "\n")
		line = ""
	}
	line += strings.Repeat(" ", column-len(line))
	used := column
	for i, word := range strings.Fields(text) {
		switch {
		case i == 0:
		case used+1+len(word) > helpWidth:
			b.WriteString(line + "\n")
			line, used = strings.Repeat(" ", column), column
		default:
			line += " "
			used++
		}
		line += word
		used += len(word)
	}
	b.WriteString(line + "\n")
}

// placeholder is the word for a flag's value: the one in back quotes in its usage, or one for its type.
func placeholder(f cli.Flag, usage string) (word, plain string) {
	if before, rest, ok := strings.Cut(usage, "`"); ok {
		if quoted, after, ok := strings.Cut(rest, "`"); ok {
			return quoted, before + quoted + after
		}
	}
	switch f := f.(type) {
	case *cli.BoolFlag:
		return "", usage
	case *cli.DurationFlag:
		return "DURATION", usage
	case *cli.StringFlag, *cli.StringSliceFlag:
		return "TEXT", usage
	case *cli.GenericFlag:
		if v, ok := f.Value.(interface{ Placeholder() string }); ok {
			return v.Placeholder(), usage
		}
	}
	return "N", usage
}

// defaultText is a flag's default as it would be typed, empty when there is none to speak of.
func defaultText(f cli.Flag) string {
	switch f := f.(type) {
	case *cli.StringFlag:
		return first(f.DefaultText, f.Value)
	case *cli.DurationFlag:
		return first(f.DefaultText, nonzero(f.Value, shortDuration(f.Value)))
	case *cli.GenericFlag:
		return first(f.DefaultText, f.Value.String())
	case *cli.IntFlag:
		return first(f.DefaultText, nonzero(f.Value, fmt.Sprint(f.Value)))
	case *cli.Int64Flag:
		return first(f.DefaultText, nonzero(f.Value, fmt.Sprint(f.Value)))
	case *cli.UintFlag:
		return first(f.DefaultText, nonzero(f.Value, fmt.Sprint(f.Value)))
	case *cli.Uint64Flag:
		return first(f.DefaultText, nonzero(f.Value, fmt.Sprint(f.Value)))
	case *cli.Float64Flag:
		return first(f.DefaultText, nonzero(f.Value, fmt.Sprint(f.Value)))
	}
	return ""
}

func first(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}

func nonzero[T comparable](v T, text string) string {
	var zero T
	if v == zero {
		return ""
	}
	return text
}

// shortDuration is a duration without its zero parts: 1h, not 1h0m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
