// Zooms the Hilbert map: it is there without us; we swap its cells, names, legend and title.
(async function () {
  const data = JSON.parse(document.getElementById("map-data").textContent);
  const svg = document.querySelector("#map svg");
  const image = svg.querySelector(".cells");
  const names = [...svg.querySelectorAll(".block")];
  const plate = image.parentNode;
  const crumbs = document.querySelector(".crumbs");
  const here = document.getElementById("here");
  const SIDE = 256, PLATE = 1024, NS = "http://www.w3.org/2000/svg";

  async function unpack(packed) {
    const bytes = Uint8Array.from(atob(packed), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint32Array(await new Response(stream).arrayBuffer());
  }
  // The curve, as in hilbert.py.
  function curve(order) {
    let x = [0], y = [0];
    for (let side = 1; side !== 2 ** order; side *= 2) {
      const far = 2 * side - 1;
      [x, y] = [
        [...y, ...x, ...x.map((v) => v + side), ...y.map((v) => far - v)],
        [...x, ...y.map((v) => v + side), ...y.map((v) => v + side), ...x.map((v) => side - 1 - v)],
      ];
    }
    return [x, y];
  }
  const [x, y] = curve(8);
  const at = new Uint16Array(SIDE * SIDE);
  x.forEach((_, step) => { at[y[step] * SIDE + x[step]] = step; });
  const [blockX, blockY] = curve(4);

  const hex = (byte) => byte.toString(16).padStart(2, "0");
  // A prefix by the bytes that it fixes, in hex.
  function written(key) {
    const bytes = key.padEnd(data.ipv6 ? 32 : 8, "0").match(/../g);
    const whole = data.ipv6
      ? bytes.join("").match(/..../g).map((group) => parseInt(group, 16).toString(16)).join(":")
      : bytes.map((byte) => parseInt(byte, 16)).join(".");
    return whole + "/" + 4 * key.length;
  }

  let counts = null, key = null;
  async function show(wanted) {
    key = wanted;
    const view = data.views[key];
    counts = await unpack(view.cells);
    const most = counts.reduce((a, b) => Math.max(a, b), 0);
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = SIDE;
    const context = canvas.getContext("2d");
    const picture = context.createImageData(SIDE, SIDE);
    const total = new Array(256).fill(0);
    counts.forEach((count, step) => {
      if (count === 0) return;
      total[step >> 8] += count;
      const pixel = 4 * (y[step] * SIDE + x[step]);
      const shade = most === 1 ? 255 : Math.round(255 * Math.log(count) / Math.log(most));
      picture.data.fill(shade, pixel, pixel + 3);
      picture.data[pixel + 3] = 255;
    });
    context.putImageData(picture, 0, 0);
    image.setAttribute("href", canvas.toDataURL());
    names.forEach((name, block) => { name.style.fillOpacity = total[block] ? ".8" : ".3"; });
    svg.querySelector(".head").textContent = view.title;
    svg.setAttribute("aria-label", view.title);
    svg.querySelector(".legend").outerHTML = view.legend;
    plate.querySelectorAll(".open").forEach((each) => each.remove());
    total.forEach((count, block) => {
      const child = key + hex(block);
      if (!data.views[child]) return;
      const square = document.createElementNS(NS, "rect");
      const step = PLATE / 16;
      square.setAttribute("class", "open");
      square.setAttribute("x", blockX[block] * step);
      square.setAttribute("y", blockY[block] * step);
      square.setAttribute("width", step);
      square.setAttribute("height", step);
      square.addEventListener("click", () => { location.hash = data.views[child].prefix; });
      plate.append(square);
    });
    const wider = Object.keys(data.views).filter((each) => key.startsWith(each)).sort((a, b) => a.length - b.length);
    crumbs.replaceChildren(...wider.map((each) => {
      const button = document.createElement("button");
      button.textContent = data.views[each].prefix;
      button.disabled = each === key;
      button.addEventListener("click", () => { location.hash = data.views[each].prefix; });
      return button;
    }));
    here.textContent = "";
  }
  svg.addEventListener("mousemove", (event) => {
    if (!counts) return;
    const box = image.getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left) / box.width * SIDE);
    const row = Math.floor((event.clientY - box.top) / box.height * SIDE);
    const inside = [column, row].every((v) => v === Math.max(0, Math.min(SIDE - 1, v)));
    if (!inside) { here.textContent = ""; return; }
    const step = at[row * SIDE + column];
    here.textContent = written(key + hex(step >> 8) + hex(step % 256)) + ": " + counts[step].toLocaleString("en") + " " + data.what;
  });
  function go() {
    const wanted = decodeURIComponent(location.hash.slice(1));
    const found = Object.keys(data.views).find((each) => data.views[each].prefix === wanted);
    show(found === undefined ? data.first : found);
  }
  addEventListener("hashchange", go);
  go();
})();
