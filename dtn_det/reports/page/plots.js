// The contents of each figure: the choices of the reader, and plotly's traces and layout for them.
const plots = (() => {
  'use strict';

  const data = JSON.parse(document.getElementById('figures').textContent);
  const scopes = data.corruptions;

  // --- What there is to draw -----------------------------------------------------------------------------------------

  const having = (measure, test) => measure.models.some((model) => model && test(model));
  const withCells = data.measures.filter((measure) => having(measure, (model) => Object.keys(model.cells).length));
  const withClean = data.measures.filter((measure) => having(measure, (model) => model.clean && model.mean));
  const withPairs = data.measures.filter((measure) => measure.pairs.length);
  const costs = data.measures.filter(({ error }) => error);
  const all = data.models.map((_, index) => index);
  const few = all.filter((index) => data.models[index].shown);
  const present = (measure) => scopes.filter(({ key }) => having(measure, (model) => model.corruptions[key]));

  const number = (measure, values) => {
    if (!values || values[0] === null) return 'none';
    const text = (value) => value.toFixed(measure.decimals).replace('-', '−');
    return text(values[0]) + (values[1] === null || values[2] === null ? '' : ` [${text(values[1])}, ${text(values[2])}]`);
  };
  const value = (values) => (values ? values[0] : null);
  // Plotly's error bars: distances from each value to both ends of its interval.
  const reach = (list) => ({
    type: 'data',
    symmetric: false,
    array: list.map((values) => (values?.[2] == null ? 0 : Math.max(0, values[2] - values[0]))),
    arrayminus: list.map((values) => (values?.[1] == null ? 0 : Math.max(0, values[0] - values[1]))),
    thickness: 1,
    width: 0,
  });
  // Escape texts, as plotly interprets some HTML tags in them.
  const safe = (text) => text.replace(/&/g, '&amp;').replace(/</g, '&lt;').replace(/>/g, '&gt;');
  const arrow = (measure) => (measure.better === 'lower' ? '↓' : '↑');
  const axisTitle = (measure, what = '') => `${what}${safe(measure.title)} ${arrow(measure)}`;

  // --- Looks ---------------------------------------------------------------------------------------------------------

  function palette() {
    const style = getComputedStyle(document.documentElement);
    const of = (name) => style.getPropertyValue(name).trim();
    const probe = document.createElement('span');
    document.body.append(probe);
    const resolved = (name) => {
      probe.style.color = of(name);
      return getComputedStyle(probe).color;
    };
    const found = Object.fromEntries(['ink', 'muted', 'line', 'paper', 'good', 'bad'].map((name) => [name, resolved(`--${name}`)]));
    probe.remove();
    return found;
  }

  let colours = null;
  const colour = (index) => (data.models[index].colour === '#000000' ? colours.ink : data.models[index].colour);
  const faint = (index) => {
    const text = colour(index);
    if (text.startsWith('rgb')) return text.replace(/rgba?\(([^)]*)\)/, (_, inner) => `rgba(${inner.split(',').slice(0, 3)}, 0.13)`);
    const channels = [1, 3, 5].map((start) => parseInt(text.slice(start, start + 2), 16));
    return `rgba(${channels}, 0.13)`;
  };
  const marker = (index, size = 8) => ({ color: colour(index), symbol: data.models[index].symbol, size, line: { width: 1.5, color: colour(index) } });
  const axis = (more) => ({
    gridcolor: colours.line, linecolor: colours.line, zeroline: false, ticks: '', automargin: true, fixedrange: false, ...more,
    title: { standoff: 12, font: { size: 13 }, ...(typeof more.title === 'string' ? { text: more.title } : more.title) },
  });
  const layout = (height, more) => ({
    height,
    margin: { l: 56, r: 16, t: 16, b: 48 },
    paper_bgcolor: 'rgba(0,0,0,0)',
    plot_bgcolor: 'rgba(0,0,0,0)',
    font: { family: getComputedStyle(document.body).fontFamily, size: 13, color: colours.ink },
    hoverlabel: { bgcolor: colours.paper, bordercolor: colours.muted, font: { color: colours.ink }, align: 'left' },
    hovermode: 'closest',
    modebar: { bgcolor: 'rgba(0,0,0,0)', color: colours.muted, activecolor: colours.ink },
    dragmode: matchMedia('(pointer: coarse)').matches ? false : 'zoom',
    legend: { orientation: 'h', y: 1.02, yanchor: 'bottom', x: 0, itemsizing: 'constant' },
    ...more,
  });
  const trace = (more) => ({ type: 'scatter', hoverinfo: 'text', ...more });

  // --- The figures ---------------------------------------------------------------------------------------------------
  // `choices` lists what the reader can choose. `draw` takes what is chosen, and returns plotly's traces and layout, and
  // the points through which the arrow keys move.

  const kinds = {
    severities: {
      choices: () => ({
        measure: withCells,
        under: [{ key: '', title: 'mean of all corruptions' }, ...present(withCells[0])],
        models: few,
      }),
      draw({ measure, under, models }) {
        const of = (model) => (under.key ? model.cells[under.key] : model.severities) ?? [];
        const bands = [];
        const lines = [];
        const walk = [];
        for (const index of models) {
          const model = measure.models[index];
          if (!model) continue;
          const points = [model.clean, ...of(model)].map((values, severity) => ({ values, severity })).filter(({ values }) => values);
          if (!points.length) continue;
          const x = points.map(({ severity }) => severity);
          const name = data.models[index].name;
          const texts = points.map(({ values, severity }) =>
            `${name}, ${severity ? `severity ${severity}` : 'clean'}: ${number(measure, values)}`);
          if (points.every(({ values }) => values[1] !== null)) {
            const back = [...points].reverse();
            bands.push(trace({
              x: [...x, ...back.map(({ severity }) => severity)],
              y: [...points.map(({ values }) => values[2]), ...back.map(({ values }) => values[1])],
              fill: 'toself', fillcolor: faint(index), line: { width: 0 }, mode: 'lines', hoverinfo: 'skip',
              showlegend: false, legendgroup: String(index),
            }));
          }
          lines.push(trace({
            x, y: points.map(({ values }) => values[0]), mode: 'lines+markers', name: safe(name), hovertext: texts.map(safe),
            line: { color: colour(index), width: 2, dash: data.models[index].dash }, marker: marker(index), legendgroup: String(index),
          }));
          walk.push(texts);
        }
        return {
          traces: [...bands, ...lines],
          layout: layout(440, {
            xaxis: axis({ title: 'Severity', tickvals: [0, 1, 2, 3, 4, 5], ticktext: ['clean', '1', '2', '3', '4', '5'], showgrid: false }),
            yaxis: axis({ title: axisTitle(measure) }),
          }),
          walk: walk.map((texts, line) => texts.map((text, point) => ({ text, curve: bands.length + line, point }))),
        };
      },
    },

    heat: {
      choices: () => ({
        measure: data.measures,
        severity: [{ key: 0, title: 'all severities' }, ...[1, 2, 3, 4, 5].map((key) => ({ key, title: `severity ${key}` }))],
      }),
      draw({ measure, severity }, width) {
        const rows = all.filter((index) => measure.models[index]);
        const columns = present(measure);
        const of = (index, key) => {
          const model = measure.models[index];
          return severity.key ? model.cells[key]?.[severity.key - 1] : model.corruptions[key];
        };
        const table = rows.map((index) => columns.map(({ key }) => of(index, key) ?? null));
        const texts = rows.map((index, row) => columns.map(({ title }, column) =>
          `${data.models[index].name}, ${title}, ${severity.title}: ${number(measure, table[row][column])}`));
        const heads = columns.map(({ group }) => group);
        const starts = heads.flatMap((group, column) => (group === heads[column - 1] ? [] : [column]));
        return {
          traces: [{
            type: 'heatmap', x: columns.map((_, column) => column), y: rows.map((_, row) => row), z: table.map((row) => row.map(value)),
            hoverinfo: 'text', hovertext: texts.map((row) => row.map(safe)), colorscale: 'Cividis', reversescale: measure.better === 'lower',
            xgap: 2, ygap: 2, text: table.map((row) => row.map((values) => (values ? values[0].toFixed(Math.min(measure.decimals, 2)) : ''))),
            texttemplate: width / columns.length < 48 ? '' : '%{text}', textfont: { size: 11 }, colorbar: { thickness: 10, outlinewidth: 0, len: 0.9, title: { text: '' } },
          }],
          layout: layout(120 + 34 * rows.length, {
            margin: { l: 56, r: 8, t: 28, b: 48 },
            xaxis: axis({ tickvals: columns.map((_, column) => column), ticktext: columns.map(({ short }) => short), showgrid: false, side: 'bottom' }),
            yaxis: axis({ tickvals: rows.map((_, row) => row), ticktext: rows.map((index) => safe(data.models[index].name)), autorange: 'reversed', showgrid: false }),
            annotations: starts.map((start, place) => ({
              text: heads[start], x: (start + (starts[place + 1] ?? heads.length) - 1) / 2, y: 1, yref: 'paper', yanchor: 'bottom',
              showarrow: false, font: { color: colours.muted, size: 12 },
            })),
          }),
          walk: texts.map((row, y) => row.map((text, x) => ({ text, place: { xval: x, yval: y } }))),
        };
      },
    },

    groups: {
      choices: () => ({ measure: data.measures, models: few }),
      draw({ measure, models }) {
        const shown = models.filter((index) => measure.models[index]);
        const groups = [...data.groups.filter(({ key }) => having(measure, (model) => model.groups[key])), { key: '', title: 'All' }];
        const get = (index, key) => (key ? measure.models[index].groups[key] : measure.models[index].mean);
        const step = 0.7 / Math.max(shown.length, 2);
        const walk = [];
        const traces = shown.map((index, place) => {
          const points = groups.map(({ key, title }, row) => ({ values: get(index, key), title, row })).filter(({ values }) => values);
          const texts = points.map(({ values, title }) => `${data.models[index].name}, ${title}: ${number(measure, values)}`);
          walk.push(texts.map((text, point) => ({ text, curve: place, point })));
          return trace({
            x: points.map(({ values }) => values[0]), y: points.map(({ row }) => row + (place - (shown.length - 1) / 2) * step),
            mode: 'markers', name: safe(data.models[index].name), hovertext: texts.map(safe), marker: marker(index, 9),
            error_x: { ...reach(points.map(({ values }) => values)), color: colour(index) },
          });
        });
        return {
          traces,
          layout: layout(110 + groups.length * Math.max(46, 16 * shown.length), {
            xaxis: axis({ title: axisTitle(measure) }),
            yaxis: axis({ tickvals: groups.map((_, row) => row), ticktext: groups.map(({ title }) => title), range: [groups.length - 0.5, -0.5], showgrid: false }),
            shapes: groups.slice(1).map((_, row) => ({
              type: 'line', xref: 'paper', x0: 0, x1: 1, y0: row + 0.5, y1: row + 0.5, line: { color: colours.line, width: 1 },
            })),
          }),
          walk,
        };
      },
    },

    clean: {
      choices: () => ({ measure: withClean }),
      draw({ measure }) {
        const shown = all.filter((index) => measure.models[index]?.clean && measure.models[index].mean);
        const texts = shown.map((index) => {
          const { clean, mean } = measure.models[index];
          return `${data.models[index].name}: clean ${number(measure, clean)}, corrupted ${number(measure, mean)}`;
        });
        return {
          traces: shown.map((index, place) => {
            const { clean, mean } = measure.models[index];
            return trace({
              x: [clean[0]], y: [mean[0]], mode: shown.length > 12 ? 'markers' : 'markers+text', name: safe(data.models[index].name),
              text: [safe(data.models[index].name)], textposition: 'top center', cliponaxis: false, hovertext: [safe(texts[place])],
              marker: marker(index, 11), error_x: { ...reach([clean]), color: colour(index) },
              error_y: { ...reach([mean]), color: colour(index) }, showlegend: shown.length > 12,
            });
          }),
          layout: layout(460, {
            xaxis: axis({ title: axisTitle(measure, 'Clean: ') }),
            yaxis: axis({ title: axisTitle(measure, 'Corrupted: ') }),
          }),
          walk: [texts.map((text, place) => ({ text, curve: place, point: 0 }))],
        };
      },
    },

    forest: {
      choices: () => ({
        measure: withPairs,
        pair: data.pairs.map(([first, second], key) => ({ key, title: `${data.models[second].name} minus ${data.models[first].name}` })),
      }),
      draw({ measure, pair }) {
        const [first, second] = data.pairs[pair.key];
        const found = measure.pairs.find(({ models }) => models[0] === first && models[1] === second);
        const rows = [];
        const add = (title, values, head) => values && rows.push({ title, values, head });
        if (found) {
          add('All corruptions', found.mean, true);
          add('Clean', found.clean, false);
          found.severities.forEach((values, place) => add(`Severity ${place + 1}`, values, false));
          for (const group of data.groups) {
            add(group.title, found.groups[group.key], true);
            for (const one of scopes.filter((scope) => scope.group === group.title)) add(one.title, found.corruptions[one.key], false);
          }
        }
        // P-values are adjusted within all severities, all groups, and all corruptions.
        const clear = ({ values }) => values[3] !== null && values[3] < 1 - data.level;
        const better = ({ values }) => (values[0] > 0) === (measure.better === 'higher');
        const verdict = (row) => (clear(row) ? `${data.models[better(row) ? second : first].name} is better` : 'no clear difference');
        const tone = (row) => (clear(row) ? (better(row) ? colours.good : colours.bad) : colours.muted);
        const texts = rows.map((row) => `${row.title}: ${number(measure, row.values)}, p = ${row.values[3]?.toFixed(3) ?? 'none'}, ${verdict(row)}`);
        const bars = [[colours.good, (row) => clear(row) && better(row)], [colours.bad, (row) => clear(row) && !better(row)], [colours.muted, (row) => !clear(row)]];
        const parts = bars.map(([shade, test]) => ({ shade, places: rows.flatMap((row, place) => (test(row) ? [place] : [])) })).filter(({ places }) => places.length);
        const where = rows.map((_, place) => {
          const curve = parts.findIndex(({ places }) => places.includes(place));
          return { curve, point: parts[curve].places.indexOf(place) };
        });
        return {
          traces: parts.map(({ shade, places }) => trace({
            x: places.map((place) => rows[place].values[0]), y: places, mode: 'markers', hovertext: places.map((place) => safe(texts[place])), showlegend: false,
            marker: {
              size: places.map((place) => (rows[place].head ? 11 : 8)), color: shade, line: { width: 1.5, color: shade },
              symbol: places.map((place) => (rows[place].head ? 'diamond' : 'circle') + (clear(rows[place]) ? '' : '-open')),
            },
            error_x: { ...reach(places.map((place) => rows[place].values)), color: tone(rows[places[0]]), thickness: 1.5 },
          })),
          layout: layout(110 + 22 * rows.length, {
            margin: { l: 56, r: 16, t: 8, b: 48 },
            xaxis: axis({ title: `Difference in ${safe(measure.title)} (${measure.better} is better for ${safe(data.models[second].name)})`, rangemode: 'tozero', zeroline: true, zerolinecolor: colours.muted, zerolinewidth: 1 }),
            yaxis: axis({
              tickvals: rows.map((_, place) => place), range: [rows.length - 0.5, -0.5], showgrid: false,
              ticktext: rows.map(({ title, head }) => (head ? `<b>${title}</b>` : title)),
            }),
          }),
          walk: [texts.map((text, place) => ({ text, ...where[place] }))],
        };
      },
    },

    errors: {
      choices: () => ({
        results: [...new Set(costs.map(({ kind }) => kind))].map((key) => ({ key, title: key.toLowerCase() })),
        model: all.filter((index) => costs.some(({ models }) => models[index])).map((key) => ({ key, title: data.models[key].name })),
        under: costs.length ? [{ key: '', title: 'mean of all corruptions' }, ...present(costs[0])] : [],
      }),
      draw({ results, model, under }) {
        const shown = costs.filter(({ kind, models }) => kind === results.key && models[model.key]);
        const parts = shown.map((measure) => {
          const own = measure.models[model.key];
          const points = [own.clean, ...((under.key ? own.cells[under.key] : own.severities) ?? [])]
            .map((values, severity) => ({ values, severity })).filter(({ values }) => values);
          const texts = points.map(({ values, severity }) =>
            `${data.models[model.key].name}, ${severity ? `severity ${severity}` : 'clean'}, ${measure.error}: ${number(measure, values)}`);
          return { measure, points, texts };
        });
        return {
          traces: parts.map(({ measure, points, texts }) => trace({
            type: 'bar', x: points.map(({ severity }) => severity), y: points.map(({ values }) => values[0]), name: measure.error,
            hovertext: texts.map(safe), marker: { color: data.errors[measure.error] },
          })),
          layout: layout(440, {
            barmode: 'stack',
            xaxis: axis({ title: 'Severity', tickvals: [0, 1, 2, 3, 4, 5], ticktext: ['clean', '1', '2', '3', '4', '5'], showgrid: false }),
            yaxis: axis({ title: 'Cost in points of AP50 ↓' }),
          }),
          walk: parts.map(({ texts }, curve) => texts.map((text, point) => ({ text, curve, point }))),
        };
      },
    },

    reliability: {
      choices: () => ({
        images: [{ key: 'corrupted', title: 'corrupted images' }, { key: 'clean', title: 'clean images' }],
        models: few.filter((index) => ['clean', 'corrupted'].some((key) => data.reliability[key][index].length)),
      }),
      draw({ images, models }) {
        const shown = models.filter((index) => data.reliability[images.key][index].length);
        const walk = [];
        const traces = shown.map((index, place) => {
          const bins = data.reliability[images.key][index];
          const total = bins.reduce((sum, bin) => sum + bin[2], 0);
          const texts = bins.map(([confidence, accuracy, count]) =>
            `${data.models[index].name}: ${(100 * accuracy).toFixed(1)} % right at ${(100 * confidence).toFixed(1)} % confidence, ${count.toLocaleString('en')} answers`);
          walk.push(texts.map((text, point) => ({ text, curve: place + 1, point })));
          return trace({
            x: bins.map((bin) => 100 * bin[0]), y: bins.map((bin) => 100 * bin[1]), mode: 'lines+markers', name: safe(data.models[index].name),
            hovertext: texts.map(safe), line: { color: colour(index), width: 1.5, dash: data.models[index].dash },
            marker: { ...marker(index), size: bins.map((bin) => 5 + 18 * Math.sqrt(bin[2] / total)), opacity: 0.85 },
          });
        });
        const diagonal = trace({ x: [0, 100], y: [0, 100], mode: 'lines', hoverinfo: 'skip', showlegend: false, line: { color: colours.muted, dash: 'dash', width: 1 } });
        return {
          traces: [diagonal, ...traces],
          layout: layout(480, {
            xaxis: axis({ title: 'Confidence, %', range: [0, 102] }),
            yaxis: axis({ title: 'Accuracy, %', range: [0, 102] }),
          }),
          walk,
        };
      },
    },
  };

  return { data, kinds, forget: () => { colours = null; }, look: () => { colours ??= palette(); } };
})();
