package report

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// Table is text in aligned columns. A column whose cells are all numbers is aligned to the right.
type Table struct {
	head []string
	rows [][]string
}

// NewTable starts a table with these column heads.
func NewTable(columns ...string) *Table { return &Table{head: columns} }

// Row adds a line. Missing cells are empty; more cells than columns panic, since that is a mistake in the program.
func (t *Table) Row(cells ...any) {
	if len(cells) > len(t.head) {
		panic(fmt.Sprintf("report: %d cells in a table of %d columns", len(cells), len(t.head)))
	}
	row := make([]string, len(t.head))
	for i, c := range cells {
		row[i] = fmt.Sprint(c)
	}
	t.rows = append(t.rows, row)
}

// Write prints the table, with a rule below the heads and two spaces between columns.
func (t *Table) Write(w io.Writer) error {
	width := make([]int, len(t.head))
	right := make([]bool, len(t.head))
	for i, h := range t.head {
		width[i], right[i] = utf8.RuneCountInString(h), len(t.rows) > 0
		for _, r := range t.rows {
			width[i] = max(width[i], utf8.RuneCountInString(r[i]))
			right[i] = right[i] && numeric(r[i])
		}
	}
	rule := make([]string, len(t.head))
	for i := range rule {
		rule[i] = strings.Repeat("─", width[i])
	}
	b := bufio.NewWriter(w)
	line := func(cells []string) {
		var s strings.Builder
		for i, c := range cells {
			pad := strings.Repeat(" ", width[i]-utf8.RuneCountInString(c))
			if i > 0 {
				s.WriteString("  ")
			}
			if right[i] {
				s.WriteString(pad + c)
			} else {
				s.WriteString(c + pad)
			}
		}
		fmt.Fprintln(b, strings.TrimRight(s.String(), " "))
	}
	line(t.head)
	line(rule)
	for _, r := range t.rows {
		line(r)
	}
	if err := b.Flush(); err != nil {
		return fmt.Errorf("write table: %w", err)
	}
	return nil
}

// numeric says whether a cell reads as a figure: it starts with one (a sign or ">" before it), or is a dash or empty.
func numeric(s string) bool {
	s = strings.TrimLeft(s, ">+-–× ")
	return s == "" || (s[0] >= '0' && s[0] <= '9')
}
