package bench

import (
	"math"
	"strings"
	"testing"
)

// The slope is that of the samples after the first part, whatever that was.
func TestTrendSlope(t *testing.T) {
	trend := &Trend{Name: "MiB"}
	for i := range 100 {
		value := 10 + 0.5*float64(i)
		if i < 20 {
			value = 1000
		}
		trend.Hours, trend.Values = append(trend.Hours, float64(i)/10), append(trend.Values, value)
	}
	if got := trend.Slope(0.2); math.Abs(got-5) > 1e-9 {
		t.Errorf("slope %g, want 5", got)
	}
	if got := (&Trend{Hours: []float64{1}, Values: []float64{1}}).Slope(0); got != 0 {
		t.Errorf("the slope of one sample is %g, want 0", got)
	}
}

func TestDrawTrends(t *testing.T) {
	text, err := DrawTrends([]*Trend{
		{Name: "MiB", Hours: []float64{0, 0.1}, Values: []float64{5, 7}}, {Name: "goroutines", Hours: []float64{0}, Values: []float64{0}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"<svg", "MiB", "goroutines", "minutes"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in the chart", want)
		}
	}
}
