package reactor

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
)

// Types of records, and of messages of the handshake, as in RFC 8446.
const (
	changeCipherSpec = 20
	alertRecord      = 21
	handshakeRecord  = 22
	applicationData  = 23

	newSessionTicket = 4
	keyUpdate        = 24
)

// sealer makes the records of one direction by hand: what no well-behaved client sends, and crypto/tls cannot be made to.
type sealer struct {
	tb      testing.TB
	version uint16
	secret  []byte // of TLS 1.3
	aead    cipher.AEAD
	iv      []byte
	number  uint64 // of the next record
}

// recordingConn keeps what is read.
type recordingConn struct {
	net.Conn
	read []byte
}

func (c *recordingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.read = append(c.read, p[:n]...)
	return n, err
}

// handmade does a handshake, and returns what makes the records of the client from then on, and of the server. Where TLS
// chooses another cipher than AES-128-GCM, for want of instructions for it, the test is skipped.
func handmade(tb testing.TB, version uint16) (s *secured, client, server *sealer) {
	tb.Helper()
	serverConfig, clientConfig := configs(tb, version)
	clientConfig.CipherSuites = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256} // of TLS 1.2
	var log strings.Builder
	clientConfig.KeyLogWriter = &log
	ours, theirs := net.Pipe()
	recorded := &recordingConn{Conn: theirs}
	s = secureOver(tb, ours, recorded, serverConfig, clientConfig)
	if suite := s.server.State().CipherSuite; suite != tls.TLS_AES_128_GCM_SHA256 && suite != clientConfig.CipherSuites[0] {
		tb.Skipf("the cipher is %s", tls.CipherSuiteName(suite))
	}
	secrets := make(map[string][]byte)
	var clientRandom []byte
	for line := range strings.Lines(log.String()) {
		fields := strings.Fields(line)
		clientRandom, _ = hex.DecodeString(fields[1])
		secrets[fields[0]], _ = hex.DecodeString(fields[2])
	}
	client, server = &sealer{tb: tb, version: version}, &sealer{tb: tb, version: version}
	if version == tls.VersionTLS13 {
		client.use(secrets["CLIENT_TRAFFIC_SECRET_0"])
		server.use(secrets["SERVER_TRAFFIC_SECRET_0"])
		return s, client, server
	}
	serverRandom := recorded.read[11:43] // after the headers of the record and of the message, and the version
	keys := prf(secrets["CLIENT_RANDOM"], "key expansion", slices.Concat(serverRandom, clientRandom), 2*(16+4))
	client.aead, client.iv, client.number = newGCM(tb, keys[:16]), keys[32:36], 1 // after Finished
	server.aead, server.iv, server.number = newGCM(tb, keys[16:32]), keys[36:40], 1
	return s, client, server
}

func newGCM(tb testing.TB, key []byte) cipher.AEAD {
	tb.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		tb.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		tb.Fatal(err)
	}
	return aead
}

// prf is the pseudorandom function of TLS 1.2: RFC 5246, section 5.
func prf(secret []byte, label string, seed []byte, length int) []byte {
	hash := func(parts ...[]byte) []byte {
		mac := hmac.New(sha256.New, secret)
		mac.Write(slices.Concat(parts...))
		return mac.Sum(nil)
	}
	seed = slices.Concat([]byte(label), seed)
	var out []byte
	for a := hash(seed); len(out) < length; a = hash(a) {
		out = append(out, hash(a, seed)...)
	}
	return out[:length]
}

// use makes the keys of TLS 1.3 from a secret: RFC 8446, section 7.3.
func (s *sealer) use(secret []byte) {
	s.tb.Helper()
	s.secret, s.number = secret, 0
	s.aead, s.iv = newGCM(s.tb, s.expand("key", 16)), s.expand("iv", 12)
}

// update goes on to the next keys.
func (s *sealer) update() { s.use(s.expand("traffic upd", sha256.Size)) }

func (s *sealer) expand(label string, length int) []byte {
	s.tb.Helper()
	label = "tls13 " + label
	info := string([]byte{0, byte(length), byte(len(label))}) + label + "\x00"
	out, err := hkdf.Expand(sha256.New, s.secret, info, length)
	if err != nil {
		s.tb.Fatal(err)
	}
	return out
}

// seal returns a record.
func (s *sealer) seal(typ byte, content ...byte) []byte {
	number := binary.BigEndian.AppendUint64(nil, s.number)
	s.number++
	if s.version == tls.VersionTLS12 {
		header := binary.BigEndian.AppendUint16([]byte{typ, 3, 3}, uint16(len(number)+len(content)+s.aead.Overhead()))
		additional := binary.BigEndian.AppendUint16(slices.Concat(number, header[:3]), uint16(len(content)))
		return s.aead.Seal(append(header, number...), slices.Concat(s.iv, number), content, additional)
	}
	content = append(content, typ)
	header := binary.BigEndian.AppendUint16([]byte{applicationData, 3, 3}, uint16(len(content)+s.aead.Overhead()))
	return s.aead.Seal(header, s.nonce(number), content, header)
}

// open returns the type and the content of the first of some records of TLS 1.3, and the others.
func (s *sealer) open(records []byte) (typ byte, content, rest []byte) {
	s.tb.Helper()
	if len(records) < 5 {
		s.tb.Fatalf("want a record, got %d bytes", len(records))
	}
	header, rest := records[:5], records[5:]
	length := binary.BigEndian.Uint16(header[3:])
	number := binary.BigEndian.AppendUint64(nil, s.number)
	s.number++
	content, err := s.aead.Open(nil, s.nonce(number), rest[:length], header)
	if err != nil {
		s.tb.Fatalf("open a record: %v", err)
	}
	last := len(content) - 1
	return content[last], content[:last], rest[length:]
}

func (s *sealer) nonce(number []byte) []byte {
	nonce := bytes.Clone(s.iv)
	for i, b := range number {
		nonce[4+i] ^= b
	}
	return nonce
}

// The peer may change its key at any time, and ask for a change of ours, which is answered before anything else. Its
// records can be cut anywhere.
func TestTLSKeyUpdate(t *testing.T) {
	s, client, server := handmade(t, tls.VersionTLS13)
	for cut, n := 0, 0; cut <= n; cut++ {
		records := client.seal(handshakeRecord, keyUpdate, 0, 0, 1, 1)
		client.update()
		records = append(records, client.seal(applicationData, []byte("lock a 0\r\n")...)...)
		n = len(records)
		s.got = s.got[:0]
		for _, piece := range [][]byte{records[:cut], records[cut:]} {
			if err := s.open(piece); err != nil {
				t.Fatalf("cut at %d of %d: %v", cut, n, err)
			}
		}
		if string(s.got) != "lock a 0\r\n" {
			t.Fatalf("cut at %d of %d: received %q", cut, n, s.got)
		}
		out, ok := bytes.CutPrefix(s.server.seal([]byte("x"), []byte("l locked\r\n")), []byte("x"))
		if !ok {
			t.Fatal("what was in dst is not first")
		}
		typ, content, rest := server.open(out)
		if typ != handshakeRecord || !bytes.Equal(content, []byte{keyUpdate, 0, 0, 1, 0}) {
			t.Fatalf("the answer to a new key is %x of type %d", content, typ)
		}
		server.update()
		if typ, content, rest = server.open(rest); typ != applicationData || string(content) != "l locked\r\n" || len(rest) > 0 {
			t.Fatalf("the answer is %q of type %d, and %d bytes", content, typ, len(rest))
		}
	}
}

// Records that carry nothing are allowed, but not without end.
func TestTLSNothing(t *testing.T) {
	const allowed = 16 // in a row
	update := func(requested byte) func(*sealer) []byte {
		return func(client *sealer) []byte {
			record := client.seal(handshakeRecord, keyUpdate, 0, 0, 1, requested)
			client.update()
			return record
		}
	}
	for _, c := range []struct {
		name    string
		version uint16
		record  func(client *sealer) []byte
	}{
		{"no data", tls.VersionTLS12, func(client *sealer) []byte { return client.seal(applicationData) }},
		{"no data", tls.VersionTLS13, func(client *sealer) []byte { return client.seal(applicationData) }},
		{"warnings", tls.VersionTLS12, func(client *sealer) []byte { return client.seal(alertRecord, 1, 90) }},
		{"warnings", tls.VersionTLS13, func(client *sealer) []byte { return client.seal(alertRecord, 1, 90) }}, // user_canceled
		{"change cipher spec", tls.VersionTLS13, func(*sealer) []byte { return []byte{changeCipherSpec, 3, 3, 0, 1, 1} }},
		{"new keys", tls.VersionTLS13, update(0)},
		{"new keys for both", tls.VersionTLS13, update(1)},
	} {
		t.Run(tls.VersionName(c.version)+" "+c.name, func(t *testing.T) {
			s, client, _ := handmade(t, c.version)
			for range 3 {
				var records []byte
				for range allowed {
					records = append(records, c.record(client)...)
				}
				s.expectOpen(append(records, client.seal(applicationData, []byte("lock a 0\r\n")...)...), "lock a 0\r\n")
			}
			for range allowed {
				s.expectOpen(c.record(client), "") // each on its own
			}
			if err := s.open(c.record(client)); err == nil {
				t.Errorf("%d in a row are allowed", allowed+1)
			}
		})
	}
}

// What a client has no business to send after the handshake ends the connection: it cannot begin another one.
func TestTLSNoSecondHandshake(t *testing.T) {
	const helloRequest, clientHello = 0, 1
	for _, c := range []struct {
		name    string
		version uint16
		message []byte
	}{
		{"client hello", tls.VersionTLS12, []byte{clientHello, 0, 0, 0}},
		{"hello request", tls.VersionTLS12, []byte{helloRequest, 0, 0, 0}},
		{"client hello", tls.VersionTLS13, []byte{clientHello, 0, 0, 0}},
		{"ticket", tls.VersionTLS13, append([]byte{newSessionTicket, 0, 0, 14}, "\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01x\x00\x00"...)},
		{"unknown", tls.VersionTLS13, []byte{200, 0, 0, 0}},
		{"longer than allowed", tls.VersionTLS13, []byte{keyUpdate, 1, 0, 1}},
	} {
		t.Run(tls.VersionName(c.version)+" "+c.name, func(t *testing.T) {
			s, client, _ := handmade(t, c.version)
			if err := s.open(client.seal(handshakeRecord, c.message...)); err == nil {
				t.Fatal("it is allowed")
			} else {
				t.Log(err)
			}
			if err := s.open(client.seal(applicationData, 'x')); err == nil || err == io.EOF || len(s.got) > 0 { //nolint:errorlint // not wrapped
				t.Errorf("afterwards it received %q, %v", s.got, err)
			}
		})
	}
}
