package bench

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/dustin/go-humanize"
	"gonum.org/v1/plot"
)

// percentileAxis sets an axis up for percentiles.
func percentileAxis(axis *plot.Axis) {
	axis.Scale = plot.LogScale{}
	axis.Min, axis.Max = 1, max(axis.Max, 1000)
	ticks := plot.ConstantTicks{{Value: 2, Label: "50"}}
	for nines, x := 0, 10.0; x <= axis.Max*1.0001; nines, x = nines+1, x*10 {
		percent := 100 - 100/x
		ticks = append(ticks, plot.Tick{Value: x, Label: strconv.FormatFloat(percent, 'f', max(0, nines-1), 64)})
	}
	axis.Tick.Marker = ticks
}

// logAxis gives an axis a logarithmic scale from one round number to another.
func logAxis(axis *plot.Axis, format func(float64) string) {
	if !(axis.Min > 0) || !(axis.Max >= axis.Min) || math.IsInf(axis.Max, 0) {
		axis.Min, axis.Max = 1, 10
	}
	axis.Scale = plot.LogScale{}
	least, most := axis.Min, axis.Max
	var ticks plot.ConstantTicks
	from := math.Pow10(int(math.Floor(math.Log10(least))))
	few := most/least < 200 // otherwise decades are enough
	for decade := from; ; decade *= 10 {
		for _, digit := range []float64{1, 2, 5} {
			v := decade * digit
			if v <= least*1.0001 {
				axis.Min = v
			}
			label := ""
			if few || digit == 1 {
				label = format(v)
			}
			ticks = append(ticks, plot.Tick{Value: v, Label: label})
			if v >= most && v > axis.Min {
				axis.Max = v
				axis.Tick.Marker = ticks
				return
			}
		}
	}
}

// evenTicks puts a few ticks at round numbers on a linear axis.
func evenTicks(format func(float64) string) plot.Ticker {
	return plot.TickerFunc(func(least, most float64) (ticks []plot.Tick) {
		const atLeast = 4
		decade := math.Pow10(int(math.Floor(math.Log10((most - least) / atLeast))))
		step := decade
		for _, digit := range []float64{2, 5} {
			if (most-least)/(digit*decade) >= atLeast {
				step = digit * decade
			}
		}
		for n := math.Ceil(least / step); n*step <= most; n++ {
			ticks = append(ticks, plot.Tick{Value: n * step, Label: format(n * step)})
		}
		return ticks
	})
}

// shortNumber formats a number briefly: 120k.
func shortNumber(v float64) string {
	if math.Abs(v) < 1000 {
		return strconv.FormatFloat(v, 'g', 4, 64)
	}
	short, prefix := humanize.ComputeSI(v)
	return strconv.FormatFloat(math.Round(10*short)/10, 'f', -1, 64) + prefix
}

// shortMicros formats a time that is given in microseconds: 5ms.
func shortMicros(v float64) string {
	return time.Duration(math.Round(v * 1000)).String()
}

// lengthTicks returns ticks at the measured points.
func lengthTicks(lines []series) (ticks plot.ConstantTicks) {
	for _, s := range lines {
		for _, p := range s.points {
			ticks = append(ticks, plot.Tick{Value: p.X, Label: humanize.Comma(int64(p.X))})
		}
	}
	slices.SortFunc(ticks, func(a, b plot.Tick) int { return cmp.Compare(a.Value, b.Value) })
	return slices.CompactFunc(ticks, func(a, b plot.Tick) bool { return a.Value == b.Value })
}
