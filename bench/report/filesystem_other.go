//go:build !linux

package report

func filesystem(string) string { return "" }
