// Figures: plotly draws them when they come into view; the arrow keys move through their points.
(() => {
  'use strict';

  const { data, kinds } = plots;
  const states = new Map();
  let library = null;

  // --- Choices -------------------------------------------------------------------------------------------------------

  const titles = { measure: 'Measure', under: 'Under', severity: 'At', pair: 'Pair', images: 'On', results: 'Of', model: 'Model' };

  function prepare(plot) {
    const kind = kinds[plot.dataset.figure];
    const choices = kind.choices();
    const state = Object.fromEntries(Object.entries(choices).map(([name, list]) => [name, name === 'models' ? [...list] : list[0]]));
    const tools = plot.parentNode.querySelector('.tools');
    if (Object.values(state).includes(undefined)) {
      plot.parentNode.hidden = true;
      return false;
    }
    for (const [name, list] of Object.entries(choices)) {
      if (name === 'models') {
        if (data.models.length > 1) tools.append(modelChoice(state, () => draw(plot)));
      } else if (list.length > 1) {
        tools.append(listChoice(titles[name], list, (chosen) => {
          state[name] = chosen;
          draw(plot);
        }));
      }
    }
    tools.hidden = !tools.childElementCount;
    states.set(plot, state);
    plot.addEventListener('keydown', (event) => step(plot, event));
    return true;
  }

  function listChoice(title, list, choose) {
    const label = document.createElement('label');
    const select = document.createElement('select');
    select.append(...list.map((one, place) => new Option(one.title, place)));
    select.addEventListener('change', () => choose(list[select.value]));
    label.append(`${title} `, select);
    return label;
  }

  function modelChoice(state, changed) {
    const details = document.createElement('details');
    const summary = document.createElement('summary');
    const list = document.createElement('div');
    const count = () => { summary.textContent = `Models: ${state.models.length} of ${data.models.length}`; };
    list.className = 'checks';
    for (const index of data.models.keys()) {
      const label = document.createElement('label');
      const box = document.createElement('input');
      box.type = 'checkbox';
      box.checked = state.models.includes(index);
      box.addEventListener('change', () => {
        state.models = [...data.models.keys()].filter((one) => (one === index ? box.checked : state.models.includes(one)));
        count();
        changed();
      });
      label.append(box, ` ${data.models[index].name}`);
      list.append(label);
    }
    count();
    details.append(summary, list);
    return details;
  }

  // --- Drawing -------------------------------------------------------------------------------------------------------

  async function load() {
    const packed = Uint8Array.from(atob(document.getElementById('plotly').textContent), (sign) => sign.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream('gzip'));
    const script = document.createElement('script');
    script.textContent = await new Response(stream).text();
    document.head.append(script);
  }

  async function draw(plot) {
    library ??= load();
    await library;
    paint(plot);
  }

  function paint(plot) {
    plots.look();
    const state = states.get(plot);
    const drawn = kinds[plot.dataset.figure].draw(state, plot.clientWidth);
    state.walk = drawn.walk.filter((line) => line.length);
    state.at = null;
    const printing = document.documentElement.classList.contains('printing');
    Plotly.react(plot, drawn.traces, { ...drawn.layout, width: printing ? plot.clientWidth : undefined }, {
      responsive: true,
      displaylogo: false,
      displayModeBar: 'hover',
      modeBarButtons: [['toImage', 'resetScale2d']],
    });
    plot.dataset.drawn = 'yes';
  }

  function step(plot, event) {
    const state = states.get(plot);
    const move = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    if (!move || !state.walk?.length || event.target !== plot) return;
    event.preventDefault();
    const clamp = (place, length) => Math.max(0, Math.min(place, length - 1));
    const [line, point] = state.at ? [state.at[0] + move[0], state.at[1] + move[1]] : [0, 0];
    const row = clamp(line, state.walk.length);
    state.at = [row, clamp(point, state.walk[row].length)];
    const target = state.walk[row][state.at[1]];
    // A field of a heat map has no point number, so it is given by its position.
    Plotly.Fx.hover(plot, target.place ?? [{ curveNumber: target.curve, pointNumber: target.point }], 'xy');
    plot.parentNode.querySelector('[role=status]').textContent = target.text;
  }

  const prepared = [...document.querySelectorAll('.plot')].filter(prepare);
  const watch = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      watch.unobserve(target);
      draw(target);
    }
  }, { rootMargin: '300px' });
  prepared.forEach((plot) => watch.observe(plot));

  // Load plotly when the browser is idle, so that figures which were never in view can be printed.
  addEventListener('load', () => (window.requestIdleCallback ?? setTimeout)(() => { library ??= load(); }, { timeout: 3000 }));

  document.documentElement.addEventListener('themechange', () => {
    plots.forget();
    prepared.filter((plot) => plot.dataset.drawn).forEach(paint);
  });
  addEventListener('beforeprint', () => {
    if (window.Plotly) prepared.forEach(paint);
  });
})();
