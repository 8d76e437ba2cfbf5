package mapped

import (
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func blocks(t *testing.T, f *os.File) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// mapNew does what badger does for a new file.
func mapNew(t *testing.T, name string, size int64) *os.File {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(t.TempDir(), name), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	data, err := unix.Mmap(int(f.Fd()), 0, int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Munmap(data); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestMappedFilesHaveBlocks fails, above all, when golang.org/x/sys no longer goes through the function that Install replaces.
func TestMappedFilesHaveBlocks(t *testing.T) {
	Install()
	Install()
	const size = 8 << 20
	for name, want := range map[string]int64{"000001.sst": size, "00001.mem": FirstBytes, "000001.vlog": headerBytes} {
		if got := blocks(t, mapNew(t, name, size)); got < want || got > 2*want {
			t.Errorf("%s of %d bytes has blocks for %d, expected %d", name, size, got, want)
		}
	}
}

// TestReservedBlocksOutliveTheLength: badger takes an empty file for a new one and sets its length.
func TestReservedBlocksOutliveTheLength(t *testing.T) {
	Install()
	f, err := os.Create(filepath.Join(t.TempDir(), "00002.mem"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const reserved = 3 << 20
	if err := Reserve(f, reserved); err != nil {
		t.Fatal(err)
	}
	if Taken(f) {
		t.Error("an empty file counts as taken")
	}
	if spare, err := Spare(f); err != nil || spare < reserved {
		t.Errorf("%d bytes to spare, %v", spare, err)
	}
	if err := f.Truncate(16 << 20); err != nil {
		t.Fatal(err)
	}
	if got := blocks(t, f); got < reserved || got > 2*reserved {
		t.Errorf("blocks for %d bytes after the length was set, reserved were %d", got, reserved)
	}
	if !Taken(f) {
		t.Error("a file with a length does not count as taken")
	}
	if err := f.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(f.Name()); err != nil {
		t.Fatal(err)
	}
	if !Taken(f) {
		t.Error("a removed file does not count as taken")
	}
}

func TestZerosWhereSpaceCannotBeReserved(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const length = 3<<20 + 17
	if err := writeZeros(int(f.Fd()), length); err != nil {
		t.Fatal(err)
	}
	if st, err := f.Stat(); err != nil || st.Size() != length {
		t.Errorf("%v, %v", st.Size(), err)
	}
}

// TestLayout compares mmapper with what golang.org/x/sys/unix declares, in the version that this module builds with: Install writes
// into a variable of that type, and with another layout it would write somewhere else.
func TestLayout(t *testing.T) {
	pkg, err := build.Import("golang.org/x/sys/unix", ".", 0)
	if err != nil {
		t.Fatal(err)
	}
	structs := map[string]*ast.StructType{}
	variable := ""
	for _, name := range pkg.GoFiles {
		file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(pkg.Dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.TypeSpec:
				if s, ok := n.Type.(*ast.StructType); ok {
					structs[n.Name.Name] = s
				}
			case *ast.ValueSpec:
				if n.Names[0].Name == "mapper" && len(n.Values) == 1 {
					variable = types.ExprString(n.Values[0])
				}
			}
			return true
		})
	}
	name, _, _ := strings.Cut(strings.TrimPrefix(variable, "&"), "{")
	declared := structs[name]
	if declared != nil && name != "mmapper" { // mmapper comes first in it
		if first := declared.Fields.List[0]; types.ExprString(first.Type) == "mmapper" {
			declared = structs["mmapper"]
		}
	}
	if declared == nil || declared != structs["mmapper"] {
		t.Fatalf("golang.org/x/sys/unix has no variable mapper that points to an mmapper: %q", variable)
	}
	var fields []string
	for _, f := range declared.Fields.List {
		for range max(1, len(f.Names)) {
			fields = append(fields, types.ExprString(f.Type))
		}
	}
	signature := func(text string) string {
		return strings.NewReplacer("addr, length uintptr", "uintptr, uintptr", "prot, flags, fd int", "int, int, int", "offset int64", "int64").Replace(text)
	}
	ours := reflect.TypeFor[mmapper]()
	if len(fields) < ours.NumField() {
		t.Fatalf("the fields are %q", fields)
	}
	for i := range ours.NumField() {
		if got, want := signature(fields[i]), strings.ReplaceAll(ours.Field(i).Type.String(), "uint8", "byte"); got != want {
			t.Errorf("field %d is a %s, here a %s", i, got, want)
		}
	}
	if f := declared.Fields.List[2]; f.Names[0].Name != "mmap" {
		t.Errorf("the field that Install replaces is %s", f.Names[0].Name)
	}
}
