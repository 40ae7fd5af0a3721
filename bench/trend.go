package bench

import (
	"slices"
)

// Trend is how a figure develops over the time of a long run.
type Trend struct {
	Name   string    // with its unit, of the axis
	Hours  []float64 // of each sample, since the run began
	Values []float64
}

// Slope returns how much the figure grows in an hour: the slope of the line that fits the samples best, without the first part of
// them, in which the server comes to its size.
func (t *Trend) Slope(without float64) float64 {
	from := int(without * float64(len(t.Hours)))
	n := float64(len(t.Hours) - from)
	if n < 2 {
		return 0
	}
	var x, y, xx, xy float64
	for i := from; i < len(t.Hours); i++ {
		x += t.Hours[i]
		y += t.Values[i]
		xx += t.Hours[i] * t.Hours[i]
		xy += t.Hours[i] * t.Values[i]
	}
	if spread := n*xx - x*x; spread > 0 {
		return (n*xy - x*y) / spread
	}
	return 0
}

// DrawTrends returns charts of trends side by side, as SVG. Each needs a sample.
func DrawTrends(trends []*Trend) (string, error) {
	const minutes = 60
	var plots []share
	for i, t := range trends {
		points := make(spreads, len(t.Hours))
		for n := range points {
			points[n] = point{X: minutes * t.Hours[n], Y: t.Values[n]}
		}
		line := series{name: t.Name, look: look{color: colors[i%len(colors)].color, width: 1.4}, points: points}
		p, err := linePlot("minutes", t.Name, []series{line})
		if err != nil {
			return "", err
		}
		p.X.Min, p.Y.Min = 0, 0
		p.X.Max = max(p.X.Max, 1.0/minutes)
		p.Y.Max = max(1.1*slices.Max(t.Values), 1)
		p.X.Tick.Marker, p.Y.Tick.Marker = evenTicks(shortNumber), evenTicks(shortNumber)
		plots = append(plots, share{p, 1 / float64(len(trends))})
	}
	text, err := svg(chartWidth*2, chartHeight, nil, plots...)
	return themed(text), err
}
