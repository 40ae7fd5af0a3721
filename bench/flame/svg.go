package flame

import (
	"fmt"
	"html"
	"regexp"
	"strings"
	"time"
)

// The measures of a picture, in its own units: pixels, where it has room.
const (
	width     = 1000.0
	rowHeight = 17
	head      = 52 // title and legend
	thinnest  = 1
	letter    = 6.1 // an average letter
	inset     = 3   // of a name in its box
)

// colors of the boxes, the same on light and dark pages, with dark text. They are those of Okabe and Ito, or paler.
var colors = [parts]string{
	Library: "#cfd8dc",
	Kernel:  "#a7b4c2",
	Gnet:    "#7cc4ee",
	Reactor: "#f7b267",
	Session: "#f4d35e",
	Locks:   "#ee8959",
	Parser:  "#e3ea6b",
	TLS:     "#dda0c4",
	Runtime: "#66c2a5",
	Rest:    "#dcd3e8",
}

// style has the colours of what stands on the page itself.
const style = `<style>text { font: 11px Liberation Sans, Arial, Helvetica, sans-serif; fill: #222222; }
.page { fill: #222222; } .title { font-size: 14px; } .box { stroke: #ffffff; stroke-width: 0.5; }
@media (prefers-color-scheme: dark) { .page { fill: #e3e7ec; } .box { stroke: #14181d; } }</style>
`

// Draw returns a flame graph as SVG, with a title and the shares of the parts as its legend.
func Draw(title string, p *Profile) string {
	root := fold(p.Stacks)
	d := &drawing{perTime: width / float64(root.time)}
	rows := root.depth(time.Duration(thinnest / d.perTime))
	height := head + rows*rowHeight + 1
	d.bottom = height - 1
	fmt.Fprintf(&d.out, `<svg xmlns="http://www.w3.org/2000/svg" width="%g" height="%d" viewBox="0 0 %g %d" role="img">`+"\n",
		width, height, width, height)
	fmt.Fprintf(&d.out, "<title>%s</title>\n%s", html.EscapeString(title), style)
	d.text(inset, 15, "page title", title)
	d.legend(p.Shares(), root.time)
	d.box(root, 0, 0, root.time)
	d.out.WriteString("</svg>\n")
	return d.out.String()
}

// drawing is a picture in the making.
type drawing struct {
	out     strings.Builder
	perTime float64 // width of a nanosecond
	bottom  int     // where the lowest row ends
}

func (d *drawing) text(x float64, y int, class, text string) {
	fmt.Fprintf(&d.out, `<text x="%.1f" y="%d"`, x, y)
	if class != "" {
		fmt.Fprintf(&d.out, ` class="%s"`, class)
	}
	fmt.Fprintf(&d.out, ">%s</text>\n", html.EscapeString(text))
}

// legend draws the parts with their shares, in the order of these.
func (d *drawing) legend(shares []Share, total time.Duration) {
	const swatch, y = 11, 38
	x := float64(inset)
	for _, s := range shares {
		if s.Call {
			continue
		}
		label := fmt.Sprintf("%s %.1f %%", s.Name, percent(s.Time, total))
		fmt.Fprintf(&d.out, `<rect x="%.1f" y="%d" width="%d" height="%d" fill="%s"/>`+"\n", x, y-swatch+2, swatch, swatch, colors[s.Part])
		d.text(x+swatch+4, y, "page", label)
		x += swatch + 4 + letter*float64(len(label)) + 12
	}
}

// box draws a node and all that stands on it, unless it is too thin.
func (d *drawing) box(n *node, left float64, row int, total time.Duration) {
	wide := float64(n.time) * d.perTime
	if wide < thinnest {
		return
	}
	names := make([]string, len(n.names))
	for i, name := range n.names {
		names[i] = short(name)
	}
	top := d.bottom - (row+1)*rowHeight
	fmt.Fprintf(&d.out, `<g><title>%s: %.1f %%</title><rect class="box" x="%.2f" y="%d" width="%.2f" height="%d" fill="%s"/>`,
		html.EscapeString(strings.Join(names, " › ")), percent(n.time, total), left, top, wide, rowHeight, colors[n.part])
	if label := fit(names[len(names)-1], wide-2*inset); label != "" {
		d.text(left+inset, top+rowHeight-5, "", label)
	}
	d.out.WriteString("</g>\n")
	for _, c := range n.children {
		d.box(c, left, row+1, total)
		left += float64(c.time) * d.perTime
	}
}

func percent(part, whole time.Duration) float64 { return 100 * float64(part) / float64(whole) }

// major is the version in the path of a package.
var major = regexp.MustCompile(`/v[0-9]+\.`)

// short leaves out the path of the package.
func short(function string) string {
	function = major.ReplaceAllString(function, ".")
	generic := strings.IndexByte(function, '[')
	if generic < 0 {
		generic = len(function)
	}
	return function[strings.LastIndexByte(function[:generic], '/')+1:]
}

// fit cuts a name to a width. It is empty if there is hardly room for anything.
func fit(name string, wide float64) string {
	room := int(wide / letter)
	switch {
	case len(name) <= room:
		return name
	case room < 4:
		return ""
	}
	return strings.ToValidUTF8(name[:room-1], "") + "…"
}
