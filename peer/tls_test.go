package peer

import (
	"os"
	"path/filepath"
	"testing"

	"replicanode/internal/fixture"
)

func TestMutualTLS(t *testing.T) {
	ours, theirs := fixture.NewAuthority(t), fixture.NewAuthority(t)
	serverTLS, clientTLS, err := LoadTLS(issue(t, ours, "node"))
	if err != nil {
		t.Fatal(err)
	}
	s := startServer(t, ServerOptions{TLS: serverTLS, Identity: Identity{NodeID: 3}})
	address := s.Addr().String()
	if id, err := newClient(t, ClientOptions{TLS: clientTLS}).Describe(t.Context(), address); err != nil || id.NodeID != 3 {
		t.Fatalf("got %+v, %v", id, err)
	}
	foreign := issue(t, theirs, "stranger")
	_, strangerTLS, err := LoadTLS(TLSFiles{Certificate: foreign.Certificate, Key: foreign.Key, CA: ours.File})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newClient(t, ClientOptions{TLS: strangerTLS}).Describe(t.Context(), address); err == nil {
		t.Fatal("a stranger's certificate was accepted")
	}
	if _, err := newClient(t, ClientOptions{}).Describe(t.Context(), address); err == nil {
		t.Fatal("a client without TLS was accepted")
	}
	_, distrustful, err := LoadTLS(foreign)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newClient(t, ClientOptions{TLS: distrustful}).Describe(t.Context(), address); err == nil {
		t.Fatal("the client accepted a server that its CA did not sign")
	}
}

func TestTLSFilesAreChecked(t *testing.T) {
	good := issue(t, fixture.NewAuthority(t), "node")
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, files := range map[string]TLSFiles{
		"missing CA":  {Certificate: good.Certificate, Key: good.Key, CA: empty + "x"},
		"empty CA":    {Certificate: good.Certificate, Key: good.Key, CA: empty},
		"empty key":   {Certificate: good.Certificate, Key: empty, CA: good.CA},
		"missing own": {CA: good.CA},
	} {
		if _, _, err := LoadTLS(files); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// issue makes a certificate, its key and that of the authority.
func issue(t *testing.T, a fixture.Authority, name string) TLSFiles {
	t.Helper()
	cert, key := a.Issue(t, name)
	return TLSFiles{Certificate: cert, Key: key, CA: a.File}
}
