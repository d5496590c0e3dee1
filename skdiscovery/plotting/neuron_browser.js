"use strict";

// Whatever comes from a text goes into the page by textContent: it is never read as markup.

const N_BINS = 25;
const N_EXTREMES = 5;

const data = JSON.parse(document.getElementById("data").textContent);
const texts = data.texts.map((text) => ({ ...text, characters: Array.from(text.characters) }));
const levelOf = new Map(Array.from(data.levels, (character, level) => [character, level]));

let neuron = data.neurons[0];
let chosen = 0; // the number of the text whose heat map is shown

const find = (id) => document.getElementById(id);

function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function makeSvg(tag, attributes, text = "") {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.textContent = text;
  return element;
}

const signed = (value, digits) => (value < 0 ? "\u2212" : "+") + Math.abs(value).toFixed(digits);

// ---- values and colours

const valueOf = (level) => neuron.lowest + level * neuron.step;

const valuesOf = (index) => Array.from(neuron.traces[index], (c) => valueOf(levelOf.get(c)));

// As many digits as the steps between the values are worth.
const digitsShown = () => (neuron.step > 0 ? Math.max(0, Math.ceil(-Math.log10(neuron.step))) : 3);

function scaleEnds() {
  const [low, high] = [neuron.lowest, valueOf(data.levels.length - 1)];
  const kind = find("scale").value;
  if (kind === "fixed") return [-1, 1];
  if (kind === "data") return [low, high];
  const reach = Math.max(Math.abs(low), Math.abs(high));
  return [-reach, reach];
}

function shadeOf(value, [low, high]) {
  const place = high > low ? (value - low) / (high - low) : 0.5;
  const last = data.colours.length - 1;
  return Math.round(Math.min(1, Math.max(0, place)) * last);
}

function drawCells(element, index) {
  const { characters, is_cut: isCut } = texts[index];
  const ends = scaleEnds();
  const cells = valuesOf(index).map((value, position) => {
    const title = signed(value, digitsShown());
    const cell = make("span", { textContent: characters[position], title });
    const shade = shadeOf(value, ends);
    cell.style.background = data.colours[shade];
    cell.style.color = data.inks[shade];
    return cell;
  });
  element.replaceChildren(...cells);
  if (isCut) element.append(make("span", { className: "more", textContent: " \u2026" }));
}

// ---- the parts of the page

function fillNeurons() {
  const width = String(data.neurons.length).length;
  for (const [rank, { name, score }] of data.neurons.entries()) {
    const place = String(rank + 1).padStart(width, "\u2007");
    const textContent = `${place}  ${signed(score, 2)}  ${name}`;
    find("neuron").append(make("option", { value: rank, textContent }));
  }
  find("neuron").value = 0;
}

function drawHistogram() {
  const [width, height, left, bottom] = [640, 190, 34, 36];
  const low = Math.min(...neuron.values);
  const span = Math.max(...neuron.values) - low || 1;
  const counts = data.classes.map(() => new Array(N_BINS).fill(0));
  neuron.values.forEach((value, index) => {
    const bin = Math.min(N_BINS - 1, Math.floor(((value - low) / span) * N_BINS));
    counts[texts[index].label][bin] += 1;
  });
  const top = Math.max(...counts.flat());
  const x = (value) => left + ((value - low) / span) * (width - left - 8);
  const y = (count) => height - bottom - (count / top) * (height - bottom - 14);
  const parts = counts.map((of_class, label) => {
    const steps = of_class.map((count, bin) => {
      const edges = [bin, bin + 1].map((edge) => x(low + (edge / N_BINS) * span));
      return `V${y(count)}H${edges[1]}`;
    });
    const colour = data.class_colours[label % data.class_colours.length];
    return makeSvg("path", {
      d: `M${x(low)} ${y(0)}${steps.join("")}V${y(0)}Z`,
      fill: colour,
      "fill-opacity": 0.3,
      stroke: colour,
      "stroke-width": 2,
      "stroke-dasharray": label ? 3 + 2 * label : "none",
    });
  });
  const ink = { stroke: "currentColor" };
  parts.push(makeSvg("path", { ...ink, d: `M${left} ${y(0)}H${width - 8}` }));
  parts.push(makeSvg("text", { fill: "currentColor", x: 0, y: y(top) + 4 }, String(top)));
  for (const [value, anchor] of [[low, "start"], [low + span, "end"]]) {
    const place = { x: x(value), y: height - 6, "text-anchor": anchor, fill: "currentColor" };
    parts.push(makeSvg("text", place, signed(value, 2)));
  }
  let threshold = "";
  if (neuron.threshold !== null) {
    const isBeyond = neuron.threshold < low || neuron.threshold > low + span;
    threshold = ` Threshold, ${isBeyond ? "beyond the axis" : "vertical line"}: ${signed(neuron.threshold, 2)}.`;
    if (!isBeyond) {
      const at = x(neuron.threshold);
      parts.push(makeSvg("path", { ...ink, d: `M${at} 4V${y(0)}`, "stroke-dasharray": "6 4" }));
    }
  }
  const at = x(neuron.values[chosen]);
  const mark = `M${at} ${y(0) + 2}l-6 11h12Z`;
  parts.push(makeSvg("path", { id: "mark", d: mark, fill: "currentColor" }));
  find("histogram").replaceChildren(...parts);
  find("histogram-caption").textContent =
    `Texts by the value of ${neuron.name}; the triangle is the text below.${threshold}`;
}

function drawLegend() {
  const sizes = data.classes.map((_, label) => texts.filter((text) => text.label === label).length);
  const entries = data.classes.map((name, label) => {
    const swatch = make("i", { className: "swatch" });
    swatch.style.background = data.class_colours[label % data.class_colours.length];
    return make("span", {}, swatch, `${name} (${sizes[label]})`);
  });
  find("legend").replaceChildren(...entries);
}

const describe = (index) =>
  `${signed(neuron.values[index], 3)} \u00b7 ${data.classes[texts[index].label]}`;

function fillTexts(order) {
  const options = order.map((index) => {
    const beginning = texts[index].characters.slice(0, 80).join("").trim();
    return make("option", { value: index, textContent: `${describe(index)} \u00b7 ${beginning}` });
  });
  find("text").replaceChildren(...options);
  find("text").value = chosen;
}

function fillTail(list, indices) {
  const items = indices.map((index) => {
    const cells = make("div", { className: "cells", dir: "auto" });
    drawCells(cells, index);
    const button = make("button", { type: "button" });
    button.append(make("div", { textContent: describe(index) }), cells);
    button.dataset.text = index;
    button.setAttribute("aria-pressed", index === chosen);
    button.addEventListener("click", () => choose(index));
    return make("li", {}, button);
  });
  find(list).replaceChildren(...items);
}

function drawScale() {
  const ends = scaleEnds();
  find("scale-low").textContent = signed(ends[0], 2);
  find("scale-high").textContent = signed(ends[1], 2);
  find("scale-bar").style.background = `linear-gradient(to right, ${data.colours.join(",")})`;
  find("precision").textContent = `(values are rounded to steps of ${neuron.step.toPrecision(1)})`;
}

// ---- what can be chosen

function choose(index) {
  chosen = index;
  find("text").value = index;
  drawCells(find("heatmap"), index);
  find("readout").textContent = `${describe(index)}: of the whole text, ${texts[index].n_bytes} bytes (${data.pooling})`;
  for (const button of document.querySelectorAll("li button")) {
    button.setAttribute("aria-pressed", Number(button.dataset.text) === index);
  }
  drawHistogram();
}

function showNeuron() {
  neuron = data.neurons[Number(find("neuron").value)];
  const order = neuron.values.map((_, index) => index);
  order.sort((a, b) => neuron.values[b] - neuron.values[a]);
  find("name").textContent = `${neuron.name} \u00b7 ${data.score} ${signed(neuron.score, 3)}`;
  fillTexts(order);
  fillTail("highest", order.slice(0, N_EXTREMES));
  fillTail("lowest", order.slice(-N_EXTREMES).reverse());
  drawScale();
  choose(chosen);
}

function showValue(event) {
  const position = Array.from(find("heatmap").children).indexOf(event.target);
  if (position < 0 || position >= neuron.traces[chosen].length) return;
  const character = texts[chosen].characters[position];
  const value = event.target.title;
  find("readout").textContent = `${value} after \u201c${character}\u201d`;
}

find("summary").textContent = data.summary;
find("ranking").textContent = `Rank, ${data.score}, neuron`;
fillNeurons();
drawLegend();
chosen = data.neurons[0].values.indexOf(Math.max(...data.neurons[0].values));
showNeuron();
find("neuron").addEventListener("input", showNeuron);
find("scale").addEventListener("input", showNeuron);
find("text").addEventListener("input", () => choose(Number(find("text").value)));
find("heatmap").addEventListener("pointerover", showValue);
