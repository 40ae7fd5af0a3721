package admin

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"strconv"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	native "github.com/prometheus/prometheus/model/histogram"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/promql"
	"github.com/prometheus/prometheus/promql/parser"
	"github.com/prometheus/prometheus/storage"
	"github.com/prometheus/prometheus/tsdb/chunkenc"
	"github.com/prometheus/prometheus/tsdb/chunks"
	"github.com/prometheus/prometheus/util/annotations"
)

// What Prometheus would have scraped from a daemon, for Prometheus' own engine. Times are those since the first scrape.
const (
	scraped     = 2 * time.Hour // in all
	scrapeEvery = 30 * time.Second
)

// scrapedSeries is one series. Its value may change with time; NaN is none.
type scrapedSeries struct {
	labels labels.Labels
	value  func(at time.Duration) float64
}

// constantly is a value that does not change.
func constantly(v float64) func(time.Duration) float64 {
	return func(time.Duration) float64 { return v }
}

// series returns a series of the daemon with more labels, which come as name, value.
func series(name string, value func(time.Duration) float64, more ...string) scrapedSeries {
	b := labels.NewBuilder(labels.FromStrings(more...))
	b.Set("__name__", name).Set("job", "dreadlock").Set("instance", "lock1:6002")
	return scrapedSeries{b.Labels(), value}
}

// seriesOf returns what a scrape has found, as constant series, and that the scrape has succeeded.
func seriesOf(families map[string]*dto.MetricFamily) []scrapedSeries {
	all := []scrapedSeries{series("up", constantly(1))}
	for _, name := range slices.Sorted(maps.Keys(families)) {
		for _, m := range families[name].GetMetric() {
			var has []string
			for _, l := range m.GetLabel() {
				has = append(has, l.GetName(), l.GetValue())
			}
			add := func(suffix string, v float64, more ...string) {
				all = append(all, series(name+suffix, constantly(v), slices.Concat(has, more)...))
			}
			switch {
			case m.GetHistogram() != nil:
				h := m.GetHistogram()
				for _, b := range h.GetBucket() {
					add("_bucket", float64(b.GetCumulativeCount()), "le", strconv.FormatFloat(b.GetUpperBound(), 'g', -1, 64))
				}
				add("_sum", h.GetSampleSum())
				add("_count", float64(h.GetSampleCount()))
			case m.GetSummary() != nil:
				add("_sum", m.GetSummary().GetSampleSum())
				add("_count", float64(m.GetSummary().GetSampleCount()))
			default:
				add("", m.GetCounter().GetValue()+m.GetGauge().GetValue()+m.GetUntyped().GetValue()) // two of them are nil
			}
		}
	}
	return all
}

// matching returns the series that a selector selects.
func matching(all []scrapedSeries, matchers []*labels.Matcher) (found []scrapedSeries) {
	for _, s := range all {
		if !slices.ContainsFunc(matchers, func(m *labels.Matcher) bool { return !m.Matches(s.labels.Get(m.Name)) }) {
			found = append(found, s)
		}
	}
	return found
}

// sampleAt is a value at a time in milliseconds.
type sampleAt struct {
	at    int64
	value float64
}

func (s sampleAt) T() int64                   { return s.at }
func (s sampleAt) ST() int64                  { return 0 }
func (s sampleAt) F() float64                 { return s.value }
func (s sampleAt) H() *native.Histogram       { return nil }
func (s sampleAt) FH() *native.FloatHistogram { return nil }
func (s sampleAt) Type() chunkenc.ValueType   { return chunkenc.ValFloat }
func (s sampleAt) Copy() chunks.Sample        { return s }

// listSet is a set of series.
type listSet struct {
	series []storage.Series
	at     int
}

func (s *listSet) Next() bool {
	s.at++
	return s.at <= len(s.series)
}
func (s *listSet) At() storage.Series                { return s.series[s.at-1] }
func (s *listSet) Err() error                        { return nil }
func (s *listSet) Warnings() annotations.Annotations { return nil }

// database returns all series as Prometheus would have stored them.
func database(all []scrapedSeries) storage.Queryable {
	return &storage.MockQueryable{MockQuerier: &storage.MockQuerier{
		SelectMockFunction: func(_ bool, _ *storage.SelectHints, matchers ...*labels.Matcher) storage.SeriesSet {
			set := &listSet{}
			for _, s := range matching(all, matchers) {
				var samples []chunks.Sample
				for at := time.Duration(0); at <= scraped; at += scrapeEvery {
					if v := s.value(at); !math.IsNaN(v) {
						samples = append(samples, sampleAt{at.Milliseconds(), v})
					}
				}
				set.series = append(set.series, storage.NewListSeries(s.labels, samples))
			}
			slices.SortFunc(set.series, func(a, b storage.Series) int { return labels.Compare(a.Labels(), b.Labels()) })
			return set
		},
	}}
}

var promParser = parser.NewParser(parser.Options{})

// evaluate evaluates an expression every minute, from some time on until the end.
func evaluate(t *testing.T, all []scrapedSeries, expr string, from time.Duration) promql.Matrix {
	t.Helper()
	engine := promql.NewEngine(promql.EngineOpts{MaxSamples: 1e6, Timeout: patience, Parser: promParser})
	defer engine.Close()
	q, err := engine.NewRangeQuery(t.Context(), database(all), nil, expr,
		time.UnixMilli(from.Milliseconds()), time.UnixMilli(scraped.Milliseconds()), time.Minute)
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	defer q.Close()
	r := q.Exec(t.Context())
	m, err := r.Matrix()
	if err != nil {
		t.Fatalf("%s: %v", expr, err)
	}
	found := slices.Clone(m)
	slices.SortFunc(found, func(a, b promql.Series) int { return cmp.Compare(a.Metric.String(), b.Metric.String()) })
	return found
}

// wantSelected checks that each selector of an expression finds what a daemon exports, and that labels by which it groups are there.
func wantSelected(t *testing.T, what, text string, all []scrapedSeries) {
	t.Helper()
	expr, err := promParser.ParseExpr(text)
	if err != nil {
		t.Errorf("%s: %v in %s", what, err, text)
		return
	}
	selectors := 0
	parser.Inspect(expr, func(node parser.Node, _ []parser.Node) error {
		switch node := node.(type) {
		case *parser.VectorSelector:
			selectors++
			if len(matching(all, node.LabelMatchers)) == 0 {
				t.Errorf("%s: the daemon exports nothing like %s", what, node)
			}
		case *parser.AggregateExpr:
			for _, matchers := range parser.ExtractSelectors(node.Expr) {
				for _, s := range matching(all, matchers) {
					for _, name := range node.Grouping {
						if !s.labels.Has(name) {
							t.Errorf("%s: grouped by %s, which %s has not", what, name, s.labels)
						}
					}
				}
			}
		}
		return nil
	})
	if selectors == 0 {
		t.Errorf("%s: no metric in %s", what, text)
	}
}
