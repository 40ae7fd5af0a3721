package server

import (
	"bytes"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
)

// An estate in a file:
//
//	8 bytes   dlestate
//	4 bytes   format, big endian, as all numbers
//	8 bytes   length of the rest
//	4 bytes   CRC-32C of the rest
//	          an estate, as gob
//
// The checksum is there for files that were cut or spoiled. A predecessor that is broken can write what it likes: what is restored is
// checked once more, as a whole.

const (
	estateMagic  = "dlestate"
	estateHeader = len(estateMagic) + 4 + 8 + 4
	// estateFormat is the format that is written. All from 1 on are read.
	estateFormat = 1
)

// errEstate says that an estate cannot be read or restored.
var errEstate = errors.New("the estate of the predecessor is broken")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// write writes the estate.
func (e *estate) write(to io.Writer) error {
	var body bytes.Buffer
	if err := gob.NewEncoder(&body).Encode(e); err != nil {
		return fmt.Errorf("encode the estate: %w", err)
	}
	if _, err := to.Write(estateHead(body.Bytes())); err != nil {
		return fmt.Errorf("write the estate: %w", err)
	}
	if _, err := body.WriteTo(to); err != nil {
		return fmt.Errorf("write the estate: %w", err)
	}
	return nil
}

// estateHead returns what comes before the body of an estate.
func estateHead(body []byte) []byte {
	head := append(make([]byte, 0, estateHeader), estateMagic...)
	head = binary.BigEndian.AppendUint32(head, estateFormat)
	head = binary.BigEndian.AppendUint64(head, uint64(len(body)))
	return binary.BigEndian.AppendUint32(head, crc32.Checksum(body, castagnoli))
}

// readEstate returns the estate in a file, and what each loop has left.
func readEstate(file []byte) (e *estate, parts []*loopLeft, err error) {
	if len(file) < estateHeader || string(file[:len(estateMagic)]) != estateMagic {
		return nil, nil, fmt.Errorf("%w: it is none", errEstate)
	}
	head, body := file[len(estateMagic):estateHeader], file[estateHeader:]
	if format := binary.BigEndian.Uint32(head); format > estateFormat || format == 0 {
		return nil, nil, fmt.Errorf("the estate has format %d, and this version reads %d at most: take over with a newer one",
			format, estateFormat)
	}
	if length := binary.BigEndian.Uint64(head[4:]); length != uint64(len(body)) {
		return nil, nil, fmt.Errorf("%w: it has %d bytes of %d", errEstate, len(body), length)
	}
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(head[12:]) {
		return nil, nil, fmt.Errorf("%w: its checksum is wrong", errEstate)
	}
	e = new(estate)
	if err := gob.NewDecoder(bytes.NewReader(body)).Decode(e); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errEstate, err)
	}
	parts, err = e.decodeParts()
	return e, parts, err
}

// decodeParts decodes all parts at the same time.
func (e *estate) decodeParts() ([]*loopLeft, error) {
	parts, errs := make([]*loopLeft, len(e.Parts)), make([]error, len(e.Parts))
	var all sync.WaitGroup
	for i, part := range e.Parts {
		all.Go(func() {
			parts[i] = new(loopLeft)
			errs[i] = gob.NewDecoder(bytes.NewReader(part)).Decode(parts[i])
		})
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("%w: %w", errEstate, err)
	}
	return parts, nil
}
