// Package plog is the private log of a replica: the one thing that is synced on the write path.
package plog
