//go:build !amd64

package threadpool

const hasCounter = false

func counter() int64 { return 0 }
