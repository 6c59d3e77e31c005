package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// SyslogConfig describes a Syslog.
type SyslogConfig struct {
	// Address is unix:/path, udp:host:port or tcp:host:port; empty means unix:/dev/log. A path may be a datagram or a
	// stream socket.
	Address string
	// Hostname is what messages say they are from; empty means the system's.
	Hostname string
	// Clock gives the time; nil means time.Now.
	Clock func() time.Time
}

const (
	// syslogPriority is facility 13 (log audit), severity 6 (informational): RFC 5424, section 6.2.1.
	syslogPriority = 13*8 + 6
	dialTimeout    = time.Second
	writeTimeout   = 10 * time.Second
	// maxDatagram is what a UDP datagram over IPv4 holds.
	maxDatagram = 65507
)

// Syslog is a Sink that sends each record as a message of RFC 5424: in a datagram of its own (RFC 5426), or counted on a
// stream (RFC 6587, section 3.4.1). It connects at its first record and again after errors. After an error on a stream
// records are sent again from the first of those that were offered together, so a receiver may see some twice; their
// sequence tells. UDP may lose messages without an error, and TCP those under way when the receiver fails.
type Syslog struct {
	networks []string
	address  string
	head     string // of every message, between the time and the record
	clock    func() time.Time

	conn   net.Conn
	stream bool
	buf    []byte
}

// NewSyslog makes a Sink of a syslog receiver. It does not connect yet.
func NewSyslog(cfg SyslogConfig) (*Syslog, error) {
	if cfg.Address == "" {
		cfg.Address = "unix:/dev/log"
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Hostname == "" {
		cfg.Hostname, _ = os.Hostname() // without one, messages have a dash there
	}
	s := &Syslog{clock: cfg.Clock}
	network, address, found := strings.Cut(cfg.Address, ":")
	s.address = address
	_, _, err := net.SplitHostPort(address)
	switch {
	case found && network == "unix" && address != "":
		s.networks = []string{"unixgram", "unix"}
	case found && err == nil && (network == "udp" || network == "tcp"):
		s.networks = []string{network}
	default:
		return nil, fmt.Errorf("syslog address %q is not unix:/path, udp:host:port or tcp:host:port", cfg.Address)
	}
	s.head = " " + syslogName(cfg.Hostname) + " hsmkms " + strconv.Itoa(os.Getpid()) + " audit - "
	return s, nil
}

// syslogName makes a name fit for the head of a message: printable ASCII without spaces.
func syslogName(name string) string {
	fit := strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return -1
		}
		return r
	}, name)
	if fit == "" {
		return "-"
	}
	return cut(fit, 255)
}

// Write implements Sink.
func (s *Syslog) Write(records [][]byte) (int, error) {
	if err := s.connect(); err != nil {
		return 0, fmt.Errorf("connecting to syslog: %w", err)
	}
	taken, err := 0, s.conn.SetWriteDeadline(time.Now().Add(writeTimeout)) // the system's clock, as deadlines are
	if err == nil {
		if s.stream {
			taken, err = s.sendStream(records)
		} else {
			taken, err = s.sendDatagrams(records)
		}
	}
	if err != nil {
		_ = s.conn.Close()
		s.conn = nil
		return taken, fmt.Errorf("sending to syslog: %w", err)
	}
	return taken, nil
}

func (s *Syslog) connect() error {
	if s.conn != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), dialTimeout)
	defer cancel()
	var errs []error
	for _, network := range s.networks {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, s.address)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		s.conn, s.stream = conn, network == "tcp" || network == "unix"
		if s.stream {
			go watchStream(conn)
		}
		return nil
	}
	return errors.Join(errs...)
}

// watchStream closes a connection when the other side does, so that the next write fails instead of being lost in a
// buffer. It ends with the connection.
func watchStream(conn net.Conn) {
	_, _ = io.Copy(io.Discard, conn) // whatever ends it
	_ = conn.Close()
}

func (s *Syslog) appendMessage(dst, record []byte) []byte {
	dst = append(dst, '<')
	dst = strconv.AppendInt(dst, syslogPriority, 10)
	dst = append(dst, ">1 "...)
	dst = s.clock().UTC().AppendFormat(dst, "2006-01-02T15:04:05.000000Z")
	dst = append(dst, s.head...)
	return append(dst, record...)
}

func (s *Syslog) sendStream(records [][]byte) (int, error) {
	s.buf = s.buf[:0]
	var message []byte
	for _, record := range records {
		message = s.appendMessage(message[:0], record)
		s.buf = strconv.AppendInt(s.buf, int64(len(message)), 10)
		s.buf = append(append(s.buf, ' '), message...)
	}
	if _, err := s.conn.Write(s.buf); err != nil {
		return 0, err
	}
	return len(records), nil
}

// sendDatagrams sends a message in place of a record that no datagram holds, so that its sequence is not missing.
func (s *Syslog) sendDatagrams(records [][]byte) (int, error) {
	for i, record := range records {
		s.buf = s.appendMessage(s.buf[:0], record)
		tooLong := len(s.buf) > maxDatagram && s.networks[0] == "udp"
		if !tooLong {
			_, err := s.conn.Write(s.buf)
			tooLong = errors.Is(err, syscall.EMSGSIZE)
			if err != nil && !tooLong {
				return i, err
			}
		}
		if tooLong {
			s.buf = s.appendMessage(s.buf[:0], omitted(record))
			if _, err := s.conn.Write(s.buf); err != nil {
				return i, err
			}
		}
	}
	return len(records), nil
}

// omitted is what a receiver gets of a record that is too long for it: its place in the trail.
func omitted(record []byte) []byte {
	e := encoder{buf: []byte{'{'}}
	e.flag("omitted", true)
	e.number("originalSize", uint64(len(record)))
	l, err := parseLine(record)
	if err == nil {
		e.number("sequence", l.Sequence)
		e.text("hash", l.Hash.String())
	}
	e.raw("}")
	return e.buf
}

// Close implements Sink.
func (s *Syslog) Close() error {
	if s.conn == nil {
		return nil
	}
	err := s.conn.Close()
	s.conn = nil
	if errors.Is(err, net.ErrClosed) { // by the other side, see watchStream
		return nil
	}
	return err
}
