package node

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"replicanode/internal/fixture"
)

// TestWrongTLSFileIsNamed, before anything is bound or written.
func TestWrongTLSFileIsNamed(t *testing.T) {
	dir := t.TempDir()
	authority := fixture.NewAuthority(t)
	ca := authority.File
	cert, key := authority.Issue(t, "ours")
	_, otherKey := authority.Issue(t, "other")
	prose := filepath.Join(dir, "prose")
	if err := os.WriteFile(prose, []byte("dear peer"), 0o600); err != nil {
		t.Fatal(err)
	}
	none := filepath.Join(dir, "none")
	for _, tc := range []struct{ name, cert, key, ca, flag, value string }{
		{"all right", cert, key, ca, "", ""},
		{"no certificate", none, key, ca, "peer-tls-cert", none},
		{"no key", cert, none, ca, "peer-tls-key", none},
		{"no authority", cert, key, none, "peer-tls-ca", none},
		{"prose as certificate", prose, key, ca, "peer-tls-cert", prose},
		{"prose as key", cert, prose, ca, "peer-tls-key", prose},
		{"prose as authority", cert, key, prose, "peer-tls-ca", prose},
		{"key as certificate", key, key, ca, "peer-tls-cert", key},
		{"another's key", cert, otherKey, ca, "peer-tls-key", otherKey},
		{"certificate as key", cert, cert, ca, "peer-tls-key", cert},
		{"key as authority", cert, key, key, "peer-tls-ca", key},
		{"key forgotten", cert, "", ca, "peer-tls-key", `""`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, err := New(Options{DataDir: filepath.Join(dir, "data"), PeerTLSCert: tc.cert, PeerTLSKey: tc.key, PeerTLSCA: tc.ca})
			var flag *FlagError
			switch {
			case tc.flag == "":
				if err != nil {
					t.Error(err)
				}
			case !errors.As(err, &flag) || flag.Flag != tc.flag || flag.Value != tc.value:
				t.Errorf("%v, want --%s %s", err, tc.flag, tc.value)
			}
		})
	}
	if _, err := os.Stat(filepath.Join(dir, "data")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the data folder was touched: %v", err)
	}
}
