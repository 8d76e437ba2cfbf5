package peer

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"sync"
)

// TLSFiles names the PEM files with which a node proves who it is and checks its peers.
type TLSFiles struct {
	// Certificate and Key are the node's own. They are read again for every handshake, so that they can be replaced while the
	// node runs; when reading them fails then, the last good pair is used.
	Certificate, Key string
	// CA holds the certificates of the authorities that sign peers, for both directions.
	CA string
}

// LoadTLS makes the server's and the client's side of mutual TLS 1.3: each side proves itself with the certificate and accepts
// only peers signed by the CA.
func LoadTLS(files TLSFiles) (server, client *tls.Config, err error) {
	pem, err := os.ReadFile(files.CA)
	if err != nil {
		return nil, nil, fmt.Errorf("read peer CA: %w", err)
	}
	authorities := x509.NewCertPool()
	if !authorities.AppendCertsFromPEM(pem) {
		return nil, nil, fmt.Errorf("read peer CA %s: %w", files.CA, errNoCertificate)
	}
	pair := &keyPair{files: files}
	if _, err := pair.load(); err != nil {
		return nil, nil, err
	}
	server = &tls.Config{
		MinVersion:     tls.VersionTLS13,
		ClientAuth:     tls.RequireAndVerifyClientCert,
		ClientCAs:      authorities,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return pair.load() },
	}
	client = &tls.Config{
		MinVersion:           tls.VersionTLS13,
		RootCAs:              authorities,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair.load() },
	}
	return server, client, nil
}

var errNoCertificate = errors.New("no certificate in it")

// keyPair reads a certificate and its key and remembers the last that was good.
type keyPair struct {
	files TLSFiles
	mu    sync.Mutex
	last  *tls.Certificate
}

func (k *keyPair) load() (*tls.Certificate, error) {
	pair, err := tls.LoadX509KeyPair(k.files.Certificate, k.files.Key)
	k.mu.Lock()
	defer k.mu.Unlock()
	if err == nil {
		k.last = &pair
	}
	if k.last == nil {
		return nil, fmt.Errorf("read peer certificate: %w", err)
	}
	return k.last, nil
}
