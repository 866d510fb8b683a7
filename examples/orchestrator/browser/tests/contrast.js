// Of every element on the page with text of its own: the contrast of that text with what lies behind it, as WCAG
// counts it. Colours are mixed by a canvas, which knows every way to write one.

const pixel = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
pixel.canvas.width = pixel.canvas.height = 1;

/** One layer of color over another. */
function painted(layers) {
  pixel.clearRect(0, 0, 1, 1);
  for (const layer of layers) {
    pixel.fillStyle = "#000";
    pixel.fillStyle = layer;
    pixel.fillRect(0, 0, 1, 1);
  }
  return [...pixel.getImageData(0, 0, 1, 1).data].slice(0, 3);
}

function luminance(rgb) {
  const [r, g, b] = rgb.map((value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function measure(element) {
  const behind = [];
  for (let at = element; at; at = at.parentElement) behind.unshift(getComputedStyle(at).backgroundColor);
  const ground = ["#fff", ...behind];
  const [bright, dark] = [painted(ground), painted([...ground, getComputedStyle(element).color])].map(luminance).sort((a, b) => b - a);
  return (bright + 0.05) / (dark + 0.05);
}

const ownText = (element) => [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
const shown = (element) => element.checkVisibility({ visibilityProperty: true, opacityProperty: true });

return [...document.body.querySelectorAll("*")]
  .filter((element) => !element.closest("noscript") && ownText(element) && shown(element))
  .map((element) => ({
    where: `${element.tagName.toLowerCase()}${element.id ? `#${element.id}` : ""}.${[...element.classList].join(".")}`,
    text: element.textContent.trim().slice(0, 60),
    contrast: measure(element),
  }));
