package server

import (
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// leaf is a value in an estate that has no parts.
type leaf struct {
	path  string
	value reflect.Value
}

// leaves returns all that can be changed in a value: numbers, texts and the like, and lists as a whole.
func leaves(path string, v reflect.Value) (all []leaf) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			all = leaves(path, v.Elem())
		}
	case reflect.Struct:
		if v.Type().PkgPath() != "dreadlock/server" && v.Type().PkgPath() != "dreadlock/reactor" {
			return nil // as the time is, or an address
		}
		for i := range v.NumField() {
			all = append(all, leaves(path+"."+v.Type().Field(i).Name, v.Field(i))...)
		}
	case reflect.Slice:
		all = append(all, leaf{path, v})
		if v.Type().Elem().Kind() == reflect.Uint8 {
			break
		}
		for i := range v.Len() {
			all = append(all, leaves(fmt.Sprintf("%s[%d]", path, i), v.Index(i))...)
		}
	case reflect.Map:
	default:
		all = append(all, leaf{path, v})
	}
	return all
}

// spoil changes a leaf, which may then be what another one is.
func (l *leaf) spoil(t *rapid.T, all []leaf) {
	v := l.value
	if rapid.Bool().Draw(t, "swap") {
		var alike []leaf
		for _, o := range all {
			if o.value.Type() == v.Type() {
				alike = append(alike, o)
			}
		}
		v.Set(rapid.SampledFrom(alike).Draw(t, "as").value)
		return
	}
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Int, reflect.Int64, reflect.Int32:
		v.SetInt(rapid.OneOf(rapid.SampledFrom([]int64{0, 1, -1, 2, 3, v.Int() + 1, v.Int() - 1, math.MaxInt64, math.MinInt64}), rapid.Int64()).Draw(t, "to"))
	case reflect.Uint64, reflect.Uint32:
		v.SetUint(rapid.OneOf(rapid.SampledFrom([]uint64{0, 1, 2, 3, v.Uint() + 1, v.Uint() - 1, math.MaxUint64}), rapid.Uint64()).Draw(t, "to"))
	case reflect.String:
		v.SetString(rapid.SampledFrom([]string{"", "kicked", "x"}).Draw(t, "to"))
	case reflect.Slice:
		if v.Len() == 0 {
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
			return
		}
		i := rapid.IntRange(0, v.Len()-1).Draw(t, "at")
		if rapid.Bool().Draw(t, "twice") {
			v.Set(reflect.Append(v, v.Index(i)))
		} else {
			v.Set(reflect.AppendSlice(v.Slice(0, i), v.Slice(i+1, v.Len())))
		}
	default:
		t.Fatalf("%s is a %s", l.path, v.Kind())
	}
}

// TestHostileEstate changes what an estate says, and not only its bytes. It is refused, or what is restored serves: nothing panics.
func TestHostileEstate(t *testing.T) {
	file := newStory(t).leave()
	refused, served := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		e, parts, err := readEstate(file)
		if err != nil {
			t.Fatal(err)
		}
		for range rapid.IntRange(1, 3).Draw(t, "changes") {
			all := leaves("", reflect.ValueOf(e))
			for i, p := range parts {
				all = append(all, leaves(fmt.Sprint("loop ", i), reflect.ValueOf(p))...)
			}
			l := rapid.Custom(func(t *rapid.T) leaf { return all[rapid.IntRange(0, len(all)-1).Draw(t, "leaf")] }).Draw(t, "what")
			l.spoil(t, all)
		}
		if rapid.Bool().Draw(t, "the size is right") {
			resize(e, parts)
		}
		s, err := inheritSpoiled(e, parts)
		if err != nil {
			refused++
			return
		}
		served++
		live(s)
		if s.err != nil && !strings.Contains(s.err.Error(), "half a line") { // which may have been left unsent
			t.Fatal(s.err)
		}
	})
	t.Logf("%d estates were refused, and %d served", refused, served)
	if refused == 0 || served == 0 {
		t.Error("the changes are all of one kind")
	}
}

// resize has the estate count what it has.
func resize(e *estate, parts []*loopLeft) {
	e.Size = estateSize{}
	for _, p := range parts {
		e.Size.Sessions += len(p.Sessions)
		for _, k := range p.Keys {
			if k.Former > 0 {
				e.Size.Resting++
			} else {
				e.Size.Keys++
			}
			e.Size.Waiters += len(k.Queue)
		}
	}
}

// inheritSpoiled has a server go on with an estate.
func inheritSpoiled(e *estate, parts []*loopLeft) (*sim, error) {
	e.Parts = nil
	for _, p := range parts {
		var part bytes.Buffer
		if err := gob.NewEncoder(&part).Encode(p); err != nil {
			return nil, err
		}
		e.Parts = append(e.Parts, part.Bytes())
	}
	var file bytes.Buffer
	if err := e.write(&file); err != nil {
		return nil, err
	}
	return inheritBytes(file.Bytes())
}

func inheritBytes(file []byte) (*sim, error) {
	s := newHeirSim(newStoryConfig())
	s.now, s.budget = storyBegin+time.Second, 1000
	_, err := s.inherit(file, nil)
	return s, err
}

// live has a server serve, time pass, and everybody leave.
func live(s *sim) {
	for range 3 {
		for _, l := range s.loops {
			l.turn(func() {})
		}
		for range 100 {
			for _, l := range s.loops {
				l.receive()
				l.expire()
				l.goOn()
			}
		}
		for _, c := range s.clients {
			c.hear()
			c.send("lock a 0\r\nfence a\r\n")
		}
		s.pass(time.Minute)
	}
	s.endAbsent()
	for _, c := range s.clients {
		c.reset()
	}
	for range 100 {
		for _, l := range s.loops {
			l.receive()
			l.goOn()
		}
	}
}

// FuzzEstate has any bytes for an estate, with a checksum that is right.
func FuzzEstate(f *testing.F) {
	file := newStory(f).leave()
	f.Add(file[estateHeader:])
	f.Fuzz(func(t *testing.T, body []byte) {
		s, err := inheritBytes(append(estateHead(body), body...))
		if err != nil && !errors.Is(err, errEstate) {
			t.Logf("%v", err)
		}
		if err == nil {
			live(s)
		}
	})
}
