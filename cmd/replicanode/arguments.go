package main

import (
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"
)

// invocation is what a command line asks for.
type invocation struct {
	path    string       // the command as it is typed, "replicanode dup list"
	command *cli.Command // nil: the program itself
	args    []string     // the arguments with flags before words, as the flag parser wants them
	help    bool         // only the help was asked for, or a group of commands was named
}

// arrange finds the command that args name and puts its flags before its words, wherever they were given. It refuses unknown
// commands and flags, flags without their value, and missing flags.
func arrange(app *cli.App, args []string) (invocation, error) {
	in := invocation{path: app.Name, args: args[:min(1, len(args))]}
	words := args[len(in.args):]
	commands := app.Commands
	if len(words) > 0 && words[0] == "help" {
		in.help, words = true, words[1:]
	}
	for len(words) > 0 && (in.command == nil || len(commands) > 0) {
		word := words[0]
		if name, isFlag := flagName(word); isFlag {
			switch {
			case isHelp(name):
				in.help = true
				return in, nil
			case in.command == nil && (name == "version" || name == "v"):
				word = "version"
			default:
				return in, usagef("unknown flag %s; flags go behind a command, see %s --help", dashed(name), in.path)
			}
		}
		i := slices.IndexFunc(commands, func(c *cli.Command) bool { return c.HasName(word) })
		if i < 0 {
			return in, usagef("unknown command %q; see %s --help", word, in.path)
		}
		in.command, words = commands[i], words[1:]
		in.path += " " + in.command.Name
		in.args = append(in.args, in.command.Name)
		commands = in.command.Subcommands
	}
	if in.command == nil || len(commands) > 0 {
		in.help = true
		return in, nil
	}
	return in, in.arrangeFlags(words)
}

// arrangeFlags takes what follows the command's name.
func (in *invocation) arrangeFlags(words []string) error {
	given := map[string]bool{}
	var flags, plain []string
	for i := 0; i < len(words); i++ {
		word := words[i]
		if word == "--" {
			plain = append(plain, words[i+1:]...)
			break
		}
		name, isFlag := flagName(word)
		if !isFlag {
			plain = append(plain, word)
			continue
		}
		if isHelp(name) {
			in.help = true
			return nil
		}
		f := findFlag(in.command, name)
		if f == nil {
			return usagef("unknown flag %s%s; see %s --help", dashed(name), meant(in.command, name), in.path)
		}
		given[f.Names()[0]] = true
		flags = append(flags, word)
		if strings.Contains(word, "=") || !takesValue(f) {
			continue
		}
		if i++; i == len(words) || isKnownFlag(in.command, words[i]) {
			return usagef("%s wants a value; see %s --help", dashed(name), in.path)
		}
		flags = append(flags, words[i])
	}
	in.args = append(append(append(in.args, flags...), "--"), plain...)
	return in.missing(given)
}

// missing names the first required flag that was not given.
func (in *invocation) missing(given map[string]bool) error {
	if in.help {
		return nil
	}
	for _, f := range in.command.Flags {
		required, ok := f.(cli.RequiredFlag)
		if !ok || !required.IsRequired() || given[f.Names()[0]] {
			continue
		}
		if doc, ok := f.(cli.DocGenerationFlag); ok && slices.ContainsFunc(doc.GetEnvVars(), func(name string) bool { return os.Getenv(name) != "" }) {
			continue
		}
		return usagef("%s is missing; see %s --help", dashed(f.Names()[0]), in.path)
	}
	return nil
}

// flagName is the name in a word that is written as a flag. A lone dash is none, nor is a negative number.
func flagName(word string) (name string, isFlag bool) {
	if len(word) < 2 || word[0] != '-' || word[1] >= '0' && word[1] <= '9' {
		return "", false
	}
	name, _, _ = strings.Cut(strings.TrimPrefix(word[1:], "-"), "=")
	return name, true
}

func isHelp(name string) bool { return name == "help" || name == "h" }

func dashed(name string) string {
	if len(name) == 1 {
		return "-" + name
	}
	return "--" + name
}

func findFlag(c *cli.Command, name string) cli.Flag {
	for _, f := range c.Flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

func isKnownFlag(c *cli.Command, word string) bool {
	name, isFlag := flagName(word)
	return isFlag && (isHelp(name) || findFlag(c, name) != nil)
}

func takesValue(f cli.Flag) bool {
	doc, ok := f.(cli.DocGenerationFlag)
	return ok && doc.TakesValue()
}

// meant offers the one flag that an unknown name is the beginning of, or that differs by a letter or two.
func meant(c *cli.Command, name string) string {
	best, least := "", 3
	for _, f := range c.Flags {
		known := f.Names()[0]
		d := distance(name, known)
		if len(name) > 2 && strings.HasPrefix(known, name) {
			d = 1
		}
		if d < least {
			best, least = known, d
		}
	}
	if best == "" {
		return ""
	}
	return ", did you mean " + dashed(best) + "?"
}

// distance is the number of letters to add, drop or change to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
