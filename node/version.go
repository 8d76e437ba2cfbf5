package node

import "runtime/debug"

// moduleVersion is the version of this module in the running binary.
func moduleVersion() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "unknown"
	}
	return info.Main.Version
}
