package bench

import (
	"bytes"
	"image/color"
	"math"
	"slices"
	"strings"
	"time"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// Lengths are in points. The page and a README show 3 points as 4 pixels if there is room.
const (
	chartWidth  = 320 * vg.Length(1)
	chartHeight = 200 * vg.Length(1)
	textSize    = 9.5 * vg.Length(1)
	barWidth    = 13 * vg.Length(1)
	barPitch    = 20 * vg.Length(1) // from bar to bar
	legendPitch = 14 * vg.Length(1) // from line to line

	legendColumns = 2
)

// The colours that belong to no server. The page finds them by their value and replaces them with those of its theme.
var (
	ink   = color.RGBA{0x22, 0x22, 0x22, 0xff} // #222222
	faint = color.RGBA{0xdd, 0xdd, 0xdd, 0xff} // #dddddd
)

// look says how a server is drawn, the same in all charts.
type look struct {
	color  color.RGBA
	dashes []vg.Length
	width  vg.Length
	glyph  draw.GlyphDrawer
}

// colors are those of Okabe and Ito, which colour-blind people can tell apart as well, on white and on black. The daemon
// has the warm ones. A server with one loop has the paler of a pair.
var colors = []struct {
	kind  string
	one   bool
	color color.RGBA
}{
	{Daemon, false, color.RGBA{0xd5, 0x5e, 0x00, 0xff}},
	{Daemon, true, color.RGBA{0xe6, 0x9f, 0x00, 0xff}},
	{GnetEcho, false, color.RGBA{0x00, 0x72, 0xb2, 0xff}},
	{GnetEcho, true, color.RGBA{0x56, 0xb4, 0xe9, 0xff}},
	{EpollEcho, true, color.RGBA{0x00, 0x9e, 0x73, 0xff}},
	{RedisPeer, true, color.RGBA{0xcc, 0x79, 0xa7, 0xff}},
	{MemcachedPeer, false, color.RGBA{0x8c, 0x8c, 0x8c, 0xff}},
}

// glyphs mark points, in the order of the servers.
var glyphs = []draw.GlyphDrawer{
	draw.CircleGlyph{}, draw.SquareGlyph{}, draw.PyramidGlyph{}, draw.RingGlyph{}, draw.BoxGlyph{}, draw.CrossGlyph{},
}

// newLooks gives each server of a comparison its look. When the colours are used up, they are given again, dotted: to ways to
// the daemon and to variants that of the daemon. These come last, so that they do not take the colour of another server.
func newLooks(cells []*Cell) map[string]look {
	looks := make(map[string]look)
	taken := make(map[int]bool)
	cells = slices.Clone(cells)
	slices.SortStableFunc(cells, func(a, b *Cell) int {
		switch {
		case a.variant() == b.variant():
			return 0
		case a.variant():
			return 1
		}
		return -1
	})
	for _, c := range cells {
		if _, ok := looks[c.Server]; ok {
			continue
		}
		n := len(looks)
		l := look{width: 1.4, glyph: glyphs[n%len(glyphs)]}
		switch {
		case n >= len(colors):
			l.color, l.dashes = colors[meantColor(c, n)].color, []vg.Length{1, vg.Length(2 + n - len(colors))}
		default:
			i := freeColor(c, taken)
			taken[i] = true
			l.color = colors[i].color
			if c.Loops == 1 {
				l.dashes = []vg.Length{4, 2}
			}
		}
		if c.Kind == Daemon {
			l.width = 2.4
		}
		looks[c.Server] = l
	}
	return looks
}

// meantColor returns the index of the colour that is meant for a server, whether or not it is taken; the one of a number if there is none.
func meantColor(c *Cell, number int) int {
	for _, alsoOther := range []bool{false, true} {
		for i, meant := range colors {
			if meant.kind == c.Kind && (alsoOther || meant.one == (c.Loops == 1)) {
				return i
			}
		}
	}
	return number % len(colors)
}

// freeColor returns the index of a server's colour: the one that is meant for it if that is free, otherwise the last free
// one. At least one must be free.
func freeColor(c *Cell, taken map[int]bool) int {
	best, last := -1, -1
	for i, meant := range colors {
		switch {
		case taken[i]:
		case meant.kind != c.Kind:
			last = i
		case best < 0 || meant.one == (c.Loops == 1):
			best = i
		}
	}
	if best < 0 {
		return last
	}
	return best
}

// bar is one bar of a chart.
type bar struct {
	name  string
	look  look
	value Stat
}

// barPlot draws bars from top to bottom, with their spread.
func barPlot(label string, format func(float64) string, bars []bar) (*plot.Plot, error) {
	p := newPlot()
	p.X.Label.Text = label
	p.X.Min = 0
	p.X.Tick.Marker = evenTicks(shortNumber)
	grid := newGrid()
	grid.Horizontal.Width = 0
	p.Add(grid)
	names := make([]string, len(bars))
	for i, b := range bars {
		at := len(bars) - 1 - i
		names[at] = b.name
		drawn, err := plotter.NewBarChart(plotter.Values{b.value.Median}, barWidth)
		if err != nil {
			return nil, err
		}
		drawn.Horizontal = true
		drawn.XMin = float64(at)
		drawn.Color = b.look.color
		drawn.Width = barWidth
		drawn.LineStyle.Width = 0
		spread, err := plotter.NewXErrorBars(spreads{{X: b.value.Median, Y: float64(at), Stat: b.value}})
		if err != nil {
			return nil, err
		}
		spread.Color = ink
		spread.Width = 0.8
		text, err := plotter.NewLabels(plotter.XYLabels{
			XYs:    plotter.XYs{{X: b.value.Max, Y: float64(at)}},
			Labels: []string{format(b.value.Median)},
		})
		if err != nil {
			return nil, err
		}
		text.TextStyle[0] = p.X.Tick.Label
		text.TextStyle[0].XAlign, text.TextStyle[0].YAlign = draw.XLeft, draw.YCenter
		text.Offset.X = 4
		p.Add(drawn, spread, text)
	}
	p.NominalY(names...)
	p.Y.Tick.Length = 0
	p.Y.Min, p.Y.Max = -0.6, float64(len(bars))-0.4
	p.X.Padding = 0
	if p.X.Max <= 0 {
		p.X.Max = 1
	}
	return p, nil
}

// barHeight is the height of a chart with n bars.
func barHeight(n int) vg.Length { return vg.Length(n)*barPitch + 42 }

// besideBars is the height of a chart with n lines that stands next to two charts with n bars each.
func besideBars(n int) vg.Length {
	const captions = 60
	return max(chartHeight, 2*barHeight(n)+captions-legendHeight(n))
}

func legendHeight(n int) vg.Length {
	return vg.Length((n+legendColumns-1)/legendColumns) * legendPitch
}

// series is one line of a chart.
type series struct {
	name   string
	look   look
	points spreads
	marked bool // each point was measured and has a glyph and a spread; otherwise only the curve is drawn
}

// point is a point with the spread of a figure: of X in a chart with horizontal bars, of Y in others.
type point struct {
	X, Y float64
	Stat Stat
}

// spreads are points in the form that plotters read.
type spreads []point

// Len returns the number of points.
func (s spreads) Len() int { return len(s) }

// XY returns a point.
func (s spreads) XY(i int) (x, y float64) { return s[i].X, s[i].Y }

// XError returns how far the spread extends to the left and to the right.
func (s spreads) XError(i int) (low, high float64) {
	return s[i].Stat.Min - s[i].X, s[i].Stat.Max - s[i].X
}

// YError returns how far the spread extends down and up.
func (s spreads) YError(i int) (low, high float64) {
	return s[i].Stat.Min - s[i].Y, s[i].Stat.Max - s[i].Y
}

// linePlot draws lines. The caller sets the scales of the axes.
func linePlot(xLabel, yLabel string, lines []series) (*plot.Plot, error) {
	p := newPlot()
	p.X.Label.Text, p.Y.Label.Text = xLabel, yLabel
	p.Add(newGrid())
	for _, s := range lines {
		line, err := plotter.NewLine(s.points)
		if err != nil {
			return nil, err
		}
		line.LineStyle = s.look.line()
		p.Add(line)
		if !s.marked {
			continue
		}
		spread, err := plotter.NewYErrorBars(s.points)
		if err != nil {
			return nil, err
		}
		spread.Color = s.look.color
		glyphs, err := plotter.NewScatter(s.points)
		if err != nil {
			return nil, err
		}
		glyphs.GlyphStyle = draw.GlyphStyle{Color: s.look.color, Radius: 3, Shape: s.look.glyph}
		p.Add(spread, glyphs)
	}
	return p, nil
}

func (l *look) line() draw.LineStyle {
	return draw.LineStyle{Color: l.color, Width: l.width, Dashes: l.dashes}
}

// Thumbnail draws a sample of the line for the legend.
func (s *series) Thumbnail(c *draw.Canvas) {
	middle := c.Center().Y
	c.StrokeLine2(s.look.line(), c.Min.X, middle, c.Max.X, middle)
	if s.marked {
		c.DrawGlyph(draw.GlyphStyle{Color: s.look.color, Radius: 3, Shape: s.look.glyph}, c.Center())
	}
}

// percentiles converts a distribution for an axis that has as much room for the slowest of a thousand as for the slowest
// of ten: one in x is slower than y, which is in the given unit.
func percentiles(l *Latency, unit time.Duration) (points spreads) {
	for _, q := range l.Distribution {
		if q.Value <= 0 || q.Percent < 0 || math.IsNaN(q.Percent) {
			continue
		}
		// At 100 %, it is one of all values.
		x := min(1/(1-min(q.Percent, 100)/100), float64(max(l.Count, 1)))
		y := float64(q.Value) / float64(unit)
		if n := len(points); n > 0 && points[n-1].X >= x {
			points[n-1].Y = max(points[n-1].Y, y)
			continue
		}
		points = append(points, point{X: x, Y: y})
	}
	return points
}

// newPlot returns an empty plot in the style of the page, without a background.
func newPlot() *plot.Plot {
	p := plot.New()
	p.BackgroundColor = nil
	face := plot.DefaultFont
	face.Variant = "Sans"
	face.Size = textSize
	p.Title.TextStyle.Font = face
	p.Title.TextStyle.Color = ink
	p.Title.Padding = 6
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		axis.Color = ink
		axis.Label.TextStyle.Font, axis.Label.TextStyle.Color = face, ink
		axis.Label.Padding = 3
		axis.Tick.Label.Font, axis.Tick.Label.Color = face, ink
		axis.Tick.Color = ink
	}
	p.Legend.TextStyle.Font, p.Legend.TextStyle.Color = face, ink
	return p
}

func newGrid() *plotter.Grid {
	g := plotter.NewGrid()
	g.Horizontal.Color, g.Vertical.Color = faint, faint
	return g
}

// share is a plot and the part of a picture's width that it takes.
type share struct {
	*plot.Plot
	part float64
}

// svg draws plots side by side, with a legend of the lines below, as SVG.
func svg(width, height vg.Length, lines []series, plots ...share) (string, error) {
	const columns = legendColumns
	rows := (len(lines) + columns - 1) / columns
	below := legendHeight(len(lines))
	canvas := vgsvg.NewWith(vgsvg.UseWH(width, height+below))
	all := draw.New(canvas)
	const margin = 4
	all = draw.Crop(all, margin, -margin, margin, -margin)
	const gap = 14
	left := vg.Length(0)
	for _, p := range plots {
		right := left + (all.Size().X+gap)*vg.Length(p.part)
		p.Draw(draw.Crop(all, left, right-gap-all.Size().X, below, 0))
		left = right
	}
	for column := range columns {
		legend := newPlot().Legend
		legend.Top, legend.Left = true, true
		legend.Padding = 4
		for i := column * rows; i < min((column+1)*rows, len(lines)); i++ {
			legend.Add(lines[i].name, &lines[i])
		}
		left := all.Size().X / columns * vg.Length(column)
		legend.Draw(draw.Crop(all, left, 0, 0, below-all.Size().Y-4))
	}
	var out bytes.Buffer
	if _, err := canvas.WriteTo(&out); err != nil {
		return "", err
	}
	// Other fonts are as wide, if this one is missing.
	const family = "font-family:Liberation Sans"
	return strings.ReplaceAll(out.String(), family+";", family+",Arial,Helvetica,sans-serif;"), nil
}

// dark is the style by which a picture fits a dark page: colours that belong to no server are replaced.
const dark = `<style>@media (prefers-color-scheme: dark) {
[style*="fill:#222222"] { fill: #e3e7ec !important; }
[style*="stroke:#222222"] { stroke: #e3e7ec !important; }
[style*="stroke:#DDDDDD"] { stroke: #363d47 !important; }
}</style>
`

// themed makes an SVG file one that follows the reader's choice of a light or a dark page. It has no background.
func themed(svg string) string {
	first := max(strings.Index(svg, "<g "), 0)
	return svg[:first] + dark + svg[first:]
}
