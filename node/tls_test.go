package node

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// selfSigned writes a certificate that signs itself, and its key.
func selfSigned(t *testing.T, dir, name string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	cert, key = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
	for file, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: raw}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cert, key
}

// TestWrongTLSFileIsNamed, before anything is bound or written.
func TestWrongTLSFileIsNamed(t *testing.T) {
	dir := t.TempDir()
	cert, key := selfSigned(t, dir, "ours")
	_, otherKey := selfSigned(t, dir, "other")
	prose := filepath.Join(dir, "prose")
	if err := os.WriteFile(prose, []byte("dear peer"), 0o600); err != nil {
		t.Fatal(err)
	}
	none := filepath.Join(dir, "none")
	for _, tc := range []struct{ name, cert, key, ca, flag, value string }{
		{"all right", cert, key, cert, "", ""},
		{"no certificate", none, key, cert, "peer-tls-cert", none},
		{"no key", cert, none, cert, "peer-tls-key", none},
		{"no authority", cert, key, none, "peer-tls-ca", none},
		{"prose as certificate", prose, key, cert, "peer-tls-cert", prose},
		{"prose as key", cert, prose, cert, "peer-tls-key", prose},
		{"prose as authority", cert, key, prose, "peer-tls-ca", prose},
		{"key as certificate", key, key, cert, "peer-tls-cert", key},
		{"another's key", cert, otherKey, cert, "peer-tls-key", otherKey},
		{"certificate as key", cert, cert, cert, "peer-tls-key", cert},
		{"key as authority", cert, key, key, "peer-tls-ca", key},
		{"key forgotten", cert, "", cert, "peer-tls-key", `""`},
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
