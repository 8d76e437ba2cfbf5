package report

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"
)

// filesystem returns the type of the mount that holds dir: the longest mount point which is a prefix of its path.
func filesystem(dir string) string {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return ""
	}
	if real, err := filepath.EvalSymlinks(abs); err == nil {
		abs = real
	}
	f, err := os.Open("/proc/self/mounts")
	if err != nil {
		return ""
	}
	defer f.Close()
	best, kind := -1, ""
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) < 3 {
			continue
		}
		point := fields[1]
		inside := abs == point || strings.HasPrefix(abs, strings.TrimSuffix(point, "/")+"/")
		if inside && len(point) >= best {
			best, kind = len(point), fields[2]
		}
	}
	return kind
}
