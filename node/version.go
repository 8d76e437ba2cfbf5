package node

import (
	"runtime"
	"runtime/debug"
	"strings"
)

// Build says what the running binary was made of.
type Build struct {
	// Version is the module's version, or "dev-" and the commit for one built from a checkout, "dev" when neither is known.
	Version string `json:"version"`
	// Commit and Time are those of the checkout, empty when the build does not know them. Modified tells of changes that were not
	// committed.
	Commit   string `json:"commit,omitempty"`
	Time     string `json:"time,omitempty"`
	Modified bool   `json:"modified,omitempty"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// String is one line for people.
func (b Build) String() string {
	var parts []string
	if b.Commit != "" {
		parts = append(parts, "commit "+b.Commit)
	}
	if b.Time != "" {
		parts = append(parts, "of "+b.Time)
	}
	if b.Modified {
		parts = append(parts, "with local changes")
	}
	if len(parts) == 0 {
		parts = append(parts, "commit not recorded in this build")
	}
	return b.Version + " (" + strings.Join(parts, " ") + ") " + b.Go + " " + b.Platform
}

// ThisBuild describes the running binary.
func ThisBuild() Build {
	b := Build{Version: "dev", Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return b
	}
	return b.fill(info)
}

func (b Build) fill(info *debug.BuildInfo) Build {
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			b.Commit = s.Value
		case "vcs.time":
			b.Time = s.Value
		case "vcs.modified":
			b.Modified = s.Value == "true"
		}
	}
	switch {
	case info.Main.Version != "" && info.Main.Version != "(devel)":
		b.Version = info.Main.Version
	case b.Commit != "":
		b.Version = "dev-" + b.Commit[:min(12, len(b.Commit))]
	}
	return b
}
