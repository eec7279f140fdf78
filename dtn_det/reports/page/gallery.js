// Sample images: pictures under each corruption and severity, with the answers of the chosen models.
(() => {
  'use strict';

  const { data } = plots;
  const gallery = JSON.parse(document.getElementById('images').textContent);
  const place = document.getElementById('gallery');
  if (!gallery || !place) return;

  const chosen = new Set(gallery.shown);
  let truth = true;
  let byError = false;
  let current = 0;

  const element = (tag, properties = {}, ...children) => {
    const made = Object.assign(document.createElement(tag), properties);
    made.append(...children);
    return made;
  };
  const drawing = (tag, attributes, ...children) => {
    const made = document.createElementNS('http://www.w3.org/2000/svg', tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  };
  const title = (key) => plots.data.corruptions.find((one) => one.key === key)?.title ?? 'Clean';
  const named = (picture) => (picture.severity ? `${title(picture.corruption)}, severity ${picture.severity}` : 'Clean');
  const colour = (index) => (data.models[index].colour === '#000000' ? 'var(--ink)' : data.models[index].colour);

  // --- One picture ---------------------------------------------------------------------------------------------------

  function picture(image, one) {
    const button = element('button', { type: 'button', className: 'picture', title: 'Enlarge' }, ...frame(image, one));
    button.addEventListener('click', () => enlarge(image, one));
    return element('figure', {}, button, answers(one));
  }

  function frame(image, one) {
    const [width, height] = image.size;
    const shown = element('img', { src: one.source, alt: `${image.truth}. ${named(one)}`, width, height, loading: 'lazy', decoding: 'async' });
    shown.classList.toggle('tiny', Math.max(width, height) <= 64);
    const boxes = image.objects.map((box) => outline(box, 'truth', 'var(--truth)'));
    for (const [index, { boxes: found }] of Object.entries(one.answers)) {
      boxes.push(...found.map((box) => outline(box, `of-${index}${box[6] ? '' : ` wrong error-${box[7]}`}`, colour(index))));
    }
    if (!boxes.length) return [shown];
    return [shown, drawing('svg', { viewBox: `0 0 ${width} ${height}`, 'aria-hidden': 'true', class: 'boxes' }, ...boxes)];
  }

  function outline([x1, y1, x2, y2, label, score, , error], kind, stroke) {
    const text = [score === undefined || score === null ? label : `${label} ${score}`, error].filter(Boolean).join(', ');
    const rectangle = drawing('rect', { x: x1, y: y1, width: Math.max(0, x2 - x1), height: Math.max(0, y2 - y1), class: kind, style: `stroke:${stroke}` });
    rectangle.append(drawing('title', {}, text));
    return rectangle;
  }

  function answers(one) {
    const lines = Object.entries(one.answers).map(([index, { text, right }]) => {
      const sign = right === null ? '' : right ? '✓' : '✗';
      const said = right === null ? '' : right ? ' right' : ' wrong';
      const swatch = element('span', { className: 'swatch' });
      swatch.style.background = colour(index);
      const name = element('span', { className: 'name', title: data.models[index].name }, `${data.models[index].name} `);
      return element(
        'li', { className: `of-${index} ${right === false ? 'wrong' : ''}` }, swatch, name, element('span', {}, text),
        element('span', { className: 'sign', ariaHidden: 'true' }, sign), element('span', { className: 'vh' }, said),
      );
    });
    return element('ul', { className: 'answers' }, ...lines);
  }

  // --- Choices -------------------------------------------------------------------------------------------------------

  const sheet = element('style');
  const legend = element('div', { className: 'checks', hidden: true });
  const dialog = element('dialog', { className: 'enlarged' });
  const tools = element('div', { className: 'tools' });
  const grid = element('div', { className: 'scroll long pictures', role: 'region', tabIndex: 0, ariaLabel: 'Sample image under each corruption' });

  function restyle() {
    const hidden = gallery.models.filter((index) => !chosen.has(index)).map((index) => `.of-${index}`);
    if (!truth) hidden.push('rect.truth');
    const rules = hidden.length ? [`${hidden.join(', ')} { display: none !important; }`] : [];
    if (byError) rules.push(...Object.entries(data.errors).map(([error, shade]) => `rect.error-${error} { stroke: ${shade} !important; }`));
    sheet.textContent = rules.join('\n');
    legend.hidden = !byError;
  }

  function check(text, checked, changed, swatch) {
    const box = element('input', { type: 'checkbox', checked });
    box.addEventListener('change', () => changed(box.checked));
    const label = element('label', {}, box);
    if (swatch) {
      const patch = element('span', { className: 'swatch' });
      patch.style.background = swatch;
      label.append(patch);
    }
    label.append(` ${text}`);
    return label;
  }

  function makeTools() {
    for (const [error, shade] of Object.entries(data.errors)) {
      const patch = element('span', { className: 'swatch' });
      patch.style.background = shade;
      // An object that was missed has no box of a detection.
      if (error !== 'Miss') legend.append(element('span', {}, patch, error));
    }
    if (gallery.images.length > 1) {
      const select = element('select', {}, ...gallery.images.map((image, index) => new Option(`${image.truth} (${image.key})`, index)));
      select.addEventListener('change', () => {
        current = Number(select.value);
        show();
      });
      tools.append(element('label', {}, 'Image ', select));
    }
    const checks = element('div', { className: 'checks', role: 'group', ariaLabel: 'Models' });
    for (const index of gallery.models) {
      checks.append(check(data.models[index].name, chosen.has(index), (on) => {
        if (on) chosen.add(index); else chosen.delete(index);
        restyle();
      }, colour(index)));
    }
    const detector = gallery.images.some((image) => image.objects.length);
    if (detector) {
      checks.append(check('Objects', truth, (on) => {
        truth = on;
        restyle();
      }, 'var(--truth)'));
      checks.append(check('Colour wrong boxes by error type', byError, (on) => {
        byError = on;
        restyle();
      }));
    }
    tools.append(checks, legend);
  }

  // --- Views ---------------------------------------------------------------------------------------------------------

  function show() {
    const image = gallery.images[current];
    const severities = [...new Set(image.pictures.map(({ severity }) => severity))].filter(Boolean).sort();
    const corruptions = [...new Set(image.pictures.map(({ corruption }) => corruption))].filter((key) => key !== 'clean');
    const of = (corruption, severity) => image.pictures.find((one) => one.corruption === corruption && one.severity === severity);
    const head = element('tr', {}, element('th', { scope: 'col' }, 'Corruption'),
      ...severities.map((severity) => element('th', { scope: 'col' }, `Severity ${severity}`)));
    const rows = corruptions.map((corruption) => element('tr', {}, element('th', { scope: 'row' }, title(corruption)),
      ...severities.map((severity) => {
        const found = of(corruption, severity);
        return element('td', {}, found ? picture(image, found) : '–');
      })));
    const clean = of('clean', 0);
    const caption = element('caption', { className: 'vh' }, `${image.truth} (${image.key}) under each corruption at each severity`);
    grid.replaceChildren(element('table', {}, caption, element('thead', {}, head), element('tbody', {}, ...rows)));
    before.replaceChildren(...(clean ? [picture(image, clean), element('p', {}, element('strong', {}, image.truth), element('br'), `Clean image ${image.key}`)] : []));
  }

  function enlarge(image, one) {
    const close = element('button', { type: 'button', className: 'close' }, 'Close');
    close.addEventListener('click', () => dialog.close());
    dialog.replaceChildren(
      element('h3', {}, `${image.truth}: ${named(one)}`), element('p', { className: 'note' }, image.key),
      element('div', { className: 'picture' }, ...frame(image, one)), answers(one), close,
    );
    dialog.showModal();
  }

  function disagreements() {
    const sides = [...new Set(gallery.disagreements.map(({ better }) => better))];
    return sides.map((side) => {
      const found = gallery.disagreements.filter(({ better }) => better === side);
      const cards = found.map(({ image }) => {
        const card = picture(image, image.pictures[0]);
        card.append(element('figcaption', {}, element('strong', {}, image.truth), ` ${named(image.pictures[0])}`));
        return element('li', {}, card);
      });
      return element('div', {}, element('h3', {}, `Where ${data.models[side].name} is better than ${data.models[found[0].worse].name}`),
        element('ul', { className: 'cards' }, ...cards));
    });
  }

  const before = element('div', { className: 'clean' });
  let built = false;
  function build() {
    if (built) return;
    built = true;
    makeTools();
    restyle();
    show();
    place.append(sheet, tools, before, grid, ...disagreements(), dialog);
  }

  new IntersectionObserver((entries, watch) => {
    if (!entries.some(({ isIntersecting }) => isIntersecting)) return;
    watch.disconnect();
    build();
  }, { rootMargin: '600px' }).observe(place);
  addEventListener('beforeprint', build);
})();
