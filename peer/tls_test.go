package peer

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestMutualTLS(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	serverTLS, clientTLS, err := LoadTLS(ours.issue(t, "node"))
	if err != nil {
		t.Fatal(err)
	}
	s := startServer(t, ServerOptions{TLS: serverTLS, Identity: Identity{NodeID: 3}})
	address := s.Addr().String()
	if id, err := newClient(t, ClientOptions{TLS: clientTLS}).Describe(t.Context(), address); err != nil || id.NodeID != 3 {
		t.Fatalf("got %+v, %v", id, err)
	}
	foreign := theirs.issue(t, "stranger")
	_, strangerTLS, err := LoadTLS(TLSFiles{Certificate: foreign.Certificate, Key: foreign.Key, CA: ours.file})
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
	good := newAuthority(t).issue(t, "node")
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

// authority signs certificates for 127.0.0.1.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t *testing.T) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return authority{cert: cert, key: key, file: writePEM(t, "CERTIFICATE", der)}
}

func (a authority) issue(t *testing.T, name string) TLSFiles {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return TLSFiles{Certificate: writePEM(t, "CERTIFICATE", der), Key: writePEM(t, "EC PRIVATE KEY", keyDER), CA: a.file}
}

func writePEM(t *testing.T, kind string, der []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}
