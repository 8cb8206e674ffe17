"""The paraphrases of every question, by key. Words only: ask.py chooses, the skills fill in the braces."""

from __future__ import annotations

_PICTURES = {
    "describe": """Describe the picture.|Describe the image.|Describe this picture.|What do you see?
        |What is in the picture?|What is in the image?|What is shown here?|List all shapes with their places.
        |Tell me what you see.|Can you describe this image?|Describe everything in the picture.
        |Describe this image in detail.""",
    "caption_short": """Give a short caption.|Write a short caption.|Caption this picture.
        |Give a short caption for the image.|Write a caption for this image.|A short caption, please.
        |Describe the picture in a few words.|Name the shapes.|Caption the image briefly.
        |Sum up the picture in one line.""",
    "caption_long": """Give a long caption.|Write a long caption.|Write a detailed caption.
        |Give a detailed caption for the image.|Describe the picture in full sentences.|A long caption, please.
        |Write a long description of the picture.|Caption this picture in detail.""",
    "story": """Tell a story about the picture.|Tell me a story about this picture.
        |Write a short story about the image.|Tell a short story.|Make up a story about the shapes.
        |Can you tell a story about this image?|Write a story about this picture.
        |Tell a two sentence story about the picture.""",
    "count_all": """How many shapes are there?|How many shapes do you see?|How many shapes are in the picture?
        |Count the shapes.|Count all shapes.|What is the number of shapes?|How many objects are there?
        |How many things are in the image?|Tell me the number of shapes.|How many shapes can you count?""",
    "count_colour": """How many {colour} shapes are there?|How many {colour} shapes do you see?
        |Count the {colour} shapes.|How many shapes are {colour}?|What is the number of {colour} shapes?
        |How many {colour} things are there?|How many {colour} objects are in the picture?
        |Tell me how many shapes are {colour}.""",
    "count_shape": """How many {shapes} are there?|How many {shapes} do you see?|Count the {shapes}.
        |How many {shapes} are in the picture?|What is the number of {shapes}?|How many {shapes} can you count?
        |How many shapes are {shapes}?|Tell me how many {shapes} there are.""",
    "colour_of": """What colour is the {shape}?|What color is the {shape}?|Which colour is the {shape}?
        |Which color is the {shape}?|What is the colour of the {shape}?|What is the color of the {shape}?
        |Name the colour of the {shape}.|Tell me the color of the {shape}.|The {shape} has which colour?""",
    "shape_of": """What shape is {colour}?|Which shape is {colour}?|What is the {colour} shape?
        |What is the shape of the {colour} object?|What shape is the {colour} thing?
        |Which shape has the colour {colour}?|Name the {colour} shape.|What {colour} shape is there?""",
    "at_place": """What is at the {place}?|What do you see at the {place}?|Which shape is at the {place}?
        |What is in the {place} of the picture?|Name the shape at the {place}.|What is there at the {place}?
        |What is located at the {place}?|Is anything at the {place}, and what?""",
    "where": """Where is the {thing}?|Where do you see the {thing}?|In which place is the {thing}?
        |What is the place of the {thing}?|Where in the picture is the {thing}?|Find the {thing}.
        |Locate the {thing}.|At which place is the {thing}?""",
    "size_of": """How large is the {thing}?|What size is the {thing}?|Is the {thing} small or large?
        |Is the {thing} large or small?|What is the size of the {thing}?|How big is the {thing}?
        |Which size has the {thing}?|Tell me the size of the {thing}.""",
    "exists": """Is there {a_thing}?|Do you see {a_thing}?|Can you see {a_thing}?|Is there {a_thing} in the picture?
        |Is {a_thing} in the picture?|Does the picture show {a_thing}?|Does the image have {a_thing}?
        |Is any shape {a_thing}?|Can you find {a_thing}?""",
    "is_colour": """Is the {shape} {colour}?|Is the colour of the {shape} {colour}?
        |Is the {shape} coloured {colour}?|Does the {shape} have the colour {colour}?
        |Is the color of the {shape} {colour}?|Would you say the {shape} is {colour}?|Is it a {colour} {shape}?
        |True or not: the {shape} is {colour}. Yes or no?""",
    "is_size": """Is the {thing} {size}?|Is the size of the {thing} {size}?|Would you say the {thing} is {size}?
        |Is this {thing} a {size} one?|Does the {thing} look {size}?|Is it a {size} {thing}?
        |Is the {thing} a {size} shape?|Do you think the {thing} is {size}?""",
    "is_at": """Is the {thing} at the {place}?|Is the {thing} in the {place}?|Do you see the {thing} at the {place}?
        |Is the place of the {thing} the {place}?|Is the {thing} located at the {place}?
        |Can you see the {thing} at the {place}?|Would you say the {thing} is at the {place}?
        |Does the {thing} sit at the {place}?""",
    "is_relation": """Is the {thing} {relation} the {other}?|Can you see the {thing} {relation} the {other}?
        |Is the place of the {thing} {relation} the {other}?|Do you see the {thing} {relation} the {other}?
        |Would you say the {thing} is {relation} the {other}?
        |Is it right that the {thing} is {relation} the {other}?
        |In the picture, is the {thing} {relation} the {other}?|Does the {thing} sit {relation} the {other}?""",
    "left_or_right": """Is the {thing} to the left or to the right of the {other}?
        |Is the {thing} left or right of the {other}?|On which side of the {other} is the {thing}?
        |Left or right: where is the {thing}, seen from the {other}?
        |Which side of the {other} is the {thing} on, left or right?
        |Seen from the {other}, is the {thing} left or right?
        |The {thing} is on which side of the {other}, left or right?|Is the {thing} right or left of the {other}?""",
    "above_or_below": """Is the {thing} above or below the {other}?|Is the {thing} below or above the {other}?
        |Above or below: where is the {thing}, seen from the {other}?
        |Seen from the {other}, is the {thing} above or below?
        |Is the {thing} higher or lower than the {other}, above or below?
        |Does the {thing} sit above or below the {other}?|The {thing} is where, above or below the {other}?
        |Where is the {thing}, above or below the {other}?""",
    "largest": """What is the largest shape?|Which shape is the largest?|Which shape is largest?
        |What is the biggest shape?|Which shape is the biggest?|Name the largest shape.
        |Which is the only large shape?|What is the largest thing?""",
    "smallest": """What is the smallest shape?|Which shape is the smallest?|Which shape is smallest?
        |Name the smallest shape.|Which is the only small shape?|What is the smallest thing?
        |What is the smallest object?|Which thing is the smallest?""",
    "sort": """What kind of picture is this?|What is this?|What sort of picture is it?|What kind of image is this?
        |What type of picture is this?|Tell me what kind of picture this is.|What am I looking at?
        |What is this image?""",
    "unknowable": """Who drew this picture?|Who drew this?|What is the weather?|Where was this picture made?
        |When was this picture made?|How much does it cost?|What is the name of the artist?|Why was this drawn?
        |How old is this picture?|What does it smell like?|What is behind the picture?|Who does this belong to?""",
}

_READING = {
    "read": """What does it say?|What does the picture say?|Read the text.|What is written here?
        |What is printed here?|Read it.|What text do you see?|What is written in the picture?
        |What does the text say?|Please read the text.|Read the image.|Write down the text.""",
    "read_line": """What does the {nth} line say?|Read the {nth} line.|What is on line {n}?|Read line {n}.
        |What does line {n} say?|What is written on line {n}?|What is the text of the {nth} line?
        |What is printed on the {nth} line?""",
    "read_number": """What number is printed?|Which number is printed?|What number do you see?|What number is shown?
        |Read the number.|What is the number?|Which number is in the picture?|Which number do you see?""",
    "letter_at": """What is the {nth} letter?|Which letter is the {nth} one?|Name the {nth} letter.
        |What letter comes {nth}?|Tell me the {nth} letter.|Read the {nth} letter.
        |What is the {nth} letter of the word?|Which letter is {nth}?""",
    "count_letters": """How many letters are there?|How many letters does it have?|Count the letters.
        |What is the number of letters?|How many letters do you see?|How long is the word?
        |How many letters are printed?|How many letters does the word have?""",
    "count_lines": """How many lines are there?|How many lines of text are there?|Count the lines.
        |What is the number of lines?|How many lines do you see?|How many lines are printed?
        |How many lines does the text have?|How many lines can you read?""",
    "is_written": """Is the word {word} there?|Does it say {word}?|Is {word} written here?
        |Do you see the word {word}?|Can you read {word}?|Is {word} printed here?|Does the picture say {word}?
        |Does the text {word} appear?|Is the text {word} in the picture?""",
    "word_by": """What is written next to the {thing}?|What word is next to the {thing}?
        |Which word is next to the {thing}?|What is printed next to the {thing}?|Read the text next to the {thing}.
        |What does it say next to the {thing}?|What text is beside the {thing}?|What stands beside the {thing}?""",
    "word_below": """What word is printed below the {thing}?|What is written below the {thing}?
        |Which word is below the {thing}?|What is printed below the {thing}?|Read the word below the {thing}.
        |What does it say below the {thing}?|What text is under the {thing}?|Which word is under the {thing}?""",
    "thing_by": """Which shape is next to the word {word}?|What shape is next to {word}?
        |What is next to the word {word}?|Which shape is beside {word}?|What is drawn next to {word}?
        |Name the shape next to {word}.|What is beside the word {word}?|Which shape goes with {word}?""",
    "where_word": """Where is the word?|Where is the text?|Where is the word {word}?|Where do you see the word?
        |At which place is the word?|Locate the word.|Find the text.|Where in the picture is the word?""",
}

_CHARTS = {
    "chart_read": """Read the chart.|Describe the chart.|List all bars with their values.|What does the chart show?
        |Give all values.|What are the values of the bars?|Read all the bars.|Write down the chart.""",
    "chart_highest": """Which bar is the highest?|Which bar is highest?|What is the highest bar?
        |Which bar has the highest value?|Which bar is the tallest?|Name the highest bar.|Which is the largest bar?
        |Which label has the highest value?""",
    "chart_lowest": """Which bar is the lowest?|Which bar is lowest?|What is the lowest bar?
        |Which bar has the lowest value?|Which bar is the shortest?|Name the lowest bar.|Which is the smallest bar?
        |Which label has the lowest value?""",
    "chart_value": """What is the value of bar {a}?|What is the value of {a}?|How high is bar {a}?|How high is {a}?
        |What value does {a} have?|Read the value of bar {a}.|How much is {a}?|Which value has bar {a}?""",
    "chart_count": """How many bars are there?|How many bars does the chart have?|Count the bars.
        |What is the number of bars?|How many bars do you see?|How many bars are in the chart?
        |How many bars are shown?|Tell me the number of bars.""",
    "chart_taller": """Is {a} taller than {b}?|Is bar {a} taller than bar {b}?|Is {a} higher than {b}?
        |Is bar {a} higher than bar {b}?|Is {a} more than {b}?|Is the value of {a} higher than that of {b}?
        |Does {a} have a higher value than {b}?|Is {a} larger than {b}?""",
    "chart_colour": """What colour is bar {a}?|What color is bar {a}?|Which colour is bar {a}?
        |What is the colour of bar {a}?|What is the color of {a}?|Name the colour of bar {a}.
        |Which color has bar {a}?|Tell me the colour of {a}.""",
    "chart_by_colour": """Which bar is {colour}?|What is the label of the {colour} bar?|Name the {colour} bar.
        |What is the {colour} bar called?|Which label does the {colour} bar have?
        |What is written below the {colour} bar?|Read the label of the {colour} bar.|The {colour} bar is which one?""",
    "chart_sum": """What is the sum of {a} and {b}?|What is {a} plus {b}?|Add {a} and {b}.
        |How much are {a} and {b} together?|What do {a} and {b} add up to?|What is the total of {a} and {b}?
        |Sum up {a} and {b}.|How much is {a} plus {b}?""",
    "chart_difference": """What is the difference of {a} and {b}?|What is the difference between {a} and {b}?
        |How far apart are {a} and {b}?|By how much do {a} and {b} differ?|What is the gap between {a} and {b}?
        |How large is the difference of {a} and {b}?|Give the difference between {a} and {b}.
        |How much do {a} and {b} differ?""",
    "chart_highest_value": """What is the highest value?|What is the value of the highest bar?
        |How high is the highest bar?|Which value is the highest?|What is the largest value?|Name the highest value.
        |How tall is the tallest bar?|Give the highest value.""",
}

_DOCUMENTS = {
    "total": """What is the total?|How much is the total?|What is the total price?|What is the sum?
        |How much is it in total?|Read the total.|How much was paid?|What does it cost in total?|Give the total.""",
    "price": """What is the price of {item}?|How much is {item}?|How much does {item} cost?|What does {item} cost?
        |Read the price of {item}.|What is the price for {item}?|Give the price of {item}.
        |How much was paid for {item}?""",
    "issue_date": """What is the invoice date?|When was the invoice issued?|What is the issue date?
        |Which date was it issued?|Read the invoice date.|On which date was this invoice issued?
        |What is the date of the invoice?|Give the issue date.""",
    "due_date": """What is the due date?|When is it due?|When is the invoice due?|When must it be paid?
        |Read the due date.|On which date is this invoice due?|What date is it due?|Give the due date.""",
    "count_items": """How many items are there?|How many items are on the list?|Count the items.
        |What is the number of items?|How many items were bought?|How many items do you see?
        |How many things were bought?|How many items are listed?""",
    "list_items": """List the items.|List all items with their prices.|Which items are on it?|What was bought?
        |Read the items.|What are the items and prices?|Give all items and their prices.|Read all lines with prices.""",
    "number": """What is the invoice number?|What is the number of the invoice?|Read the invoice number.
        |Which number has this invoice?|What number is the invoice?|Give the invoice number.
        |Which invoice number is printed?|Tell me the invoice number.""",
    "shop": """What is the name of the shop?|Which shop is this from?|Who is the seller?|What is the shop called?
        |Read the name of the shop.|What is printed at the top?|Which shop is it?|Name the shop.""",
    "is_bought": """Is {item} on the list?|Was {item} bought?|Is there {item} on it?|Do you see {item} on it?
        |Is {item} one of the items?|Does the list have {item}?|Was {item} paid for?|Is {item} listed?""",
    "document_type": """What kind of document is this?|Is this a receipt or an invoice?
        |Is this an invoice or a receipt?|What is this document?|What sort of document is it?
        |Which document is this?|Name the kind of document.|What type of document is this?""",
}

_PAIRS = {
    "which_has": """Which picture has {a_thing}?|Which image has {a_thing}?|Which picture shows {a_thing}?
        |Which of the two has {a_thing}?|In which picture is {a_thing}?
        |Where is {a_thing}, in the first or the second picture?|Which of the pictures has {a_thing}?
        |In which image do you see {a_thing}?""",
    "more": """Which picture has more shapes?|Which image has more shapes?|Which of the two has more shapes?
        |Where are more shapes?|Which picture shows more shapes?|In which picture are more shapes?
        |Which one has more shapes?|Which picture has more things?""",
    "difference": """How many more shapes are in the {which} picture?|How many more shapes has the {which} picture?
        |How many more shapes are there in the {which} image?|By how many shapes has the {which} picture more?
        |The {which} picture has how many more shapes?|Count how many more shapes the {which} picture has.
        |How many shapes more are in the {which} picture?|How many more shapes does the {which} image show?""",
    "same_count": """Do both pictures have the same number of shapes?|Is the number of shapes the same?
        |Are there as many shapes in both?|Do the two images show the same number of shapes?
        |Is the count the same in both pictures?|Have both pictures the same number of shapes?
        |Do they have the same number of shapes?|Are the counts the same?""",
    "same_colour": """Is the colour the same or different?|Do the shapes have the same colour or different ones?
        |Is the color the same or different?|Same or different colour?|Are the colours the same or different?
        |Compare the colours: same or different?|Are the colors of the two shapes the same or different?
        |Same or different color?""",
    "same_shape": """Is the shape the same or different?|Are the shapes the same or different?
        |Same or different shape?|Compare the shapes: same or different?|Is it the same shape or a different one?
        |Do the pictures show the same or different shapes?|Are both the same shape or different?
        |Is the shape in both pictures the same or different?""",
    "changed": """What changed?|What has changed?|What is different?|What changed between the pictures?
        |What is the difference?|Find the difference.|What changed from the first to the second picture?
        |What is different in the second picture?|Spot the difference.|Compare the two pictures.""",
    "count_in": """How many shapes are in the {which} picture?|Count the shapes in the {which} picture.
        |How many shapes has the {which} image?|How many shapes do you see in the {which} picture?
        |What is the number of shapes in the {which} picture?|How many shapes are in the {which} one?
        |The {which} picture has how many shapes?|How many things are in the {which} image?""",
    "describe_one": """Describe the {which} picture.|What is in the {which} picture?|Describe the {which} image.
        |What does the {which} picture show?|What do you see in the {which} picture?
        |Tell me what is in the {which} picture.|What is shown in the {which} image?
        |List all shapes of the {which} picture.""",
}

_VIDEOS = {
    "happens": """What happens in the video?|What happens?|Describe the video.|What is going on in the video?
        |What do you see in the video?|Tell me what happens.|What happens in this clip?|Describe what happens.
        |What changes in the video?|Can you describe the video?|Describe this video in detail.""",
    "direction": """In which direction does the {thing} move?|Which way does the {thing} move?
        |Where does the {thing} move?|What is the direction of the {thing}?|How does the {thing} move?
        |Which direction does the {thing} take?|In what direction does the {thing} go?
        |Which way does the {thing} go?""",
    "moves": """What moves?|Which shape moves?|What is moving?|Which shape is moving?|What moves in the video?
        |Name the shape that moves.|Which thing moves?|What object moves?""",
    "appears": """What appears?|Which shape appears?|What appears in the video?|Name the shape that appears.
        |Which thing appears?|What new shape appears?|What object appears?|Which shape is new?""",
    "disappears": """What disappears?|Which shape disappears?|What disappears in the video?
        |Name the shape that disappears.|Which thing disappears?|What goes away?|What object disappears?
        |Which shape goes away?""",
    "turns": """Which colour does the {thing} change to?|Which color does the {thing} change to?
        |What colour does the {thing} become?|What is the new colour of the {thing}?
        |Which colour does the {thing} turn?|What color does the {thing} turn?
        |To which colour does the {thing} change?|What is the new color of the {thing}?""",
    "grows": """Does the {thing} grow or shrink?|Does the {thing} shrink or grow?
        |What does the {thing} do, grow or shrink?|Grow or shrink: what does the {thing} do?
        |How does the size of the {thing} change?|Is the {thing} growing or shrinking?
        |What happens to the size of the {thing}?|Does the size of the {thing} grow or shrink?""",
    "first": """What happens first?|What happens at the beginning?|What is the first thing that happens?
        |Which event is first?|What happens before the other event?|What changes first?|First, what happens?
        |What do you see happen first?""",
    "last": """What happens last?|What happens at the end?|What is the last thing that happens?|Which event is last?
        |What happens after the other event?|What changes last?|What happens second?|What do you see happen last?""",
    "before": """Is it true that {first} before {second}?|Is it right that {first} before {second}?
        |In the video, is it that {first} before {second}?|Do you see that {first} before {second}?
        |Yes or no: {first} before {second}?|Can you see that {first} before {second}?
        |True or not: {first} before {second}. Yes or no?|Would you say that {first} before {second}?""",
    "count_end": """How many shapes are there at the end?|How many shapes are in the last frame?
        |How many shapes are left at the end?|Count the shapes at the end.|How many shapes do you see at the end?
        |What is the number of shapes at the end?|How many things are there at the end?
        |How many objects are in the last frame?""",
    "count_start": """How many shapes are there at the beginning?|How many shapes are in the first frame?
        |Count the shapes at the beginning.|How many shapes do you see at the beginning?
        |What is the number of shapes at the beginning?|How many things are there at the beginning?
        |How many objects are in the first frame?|How many shapes are there first?""",
    "any_appear": """Does anything appear?|Does a new shape appear?|Does something appear in the video?
        |Is there a shape that appears?|Does any shape appear?|Do you see anything appear?|Does anything new appear?
        |Can you see something appear?""",
    "any_move": """Does anything move?|Does a shape move?|Does something move in the video?
        |Is there a shape that moves?|Does any shape move?|Do you see anything move?|Is anything moving?
        |Can you see something move?""",
    "any_change": """Does anything change?|Does anything happen?|Does something change in the video?
        |Is there any change?|Does any shape change?|Do you see anything change?|Does something happen?
        |Can you see any change?""",
    "in_video": """Is there {a_thing} in the video?|Do you see {a_thing} in the video?
        |Does the video show {a_thing}?|Is {a_thing} in the video?|Can you see {a_thing} in the clip?
        |Does {a_thing} appear in any frame?|Is there {a_thing} in any frame?|Is {a_thing} shown?""",
}

_TEXT = {
    "who": """Who are you?|What are you?|What is your name?|Tell me who you are.|Which model are you?
        |Introduce yourself.|Who am I talking to?|What model is this?|Are you a person?|What is smolvlm-nano?""",
    "can_do": """What can you do?|How can you help me?|What are you good at?|What do you know?|Help.
        |What can I ask you?|What should I ask?|Tell me what you can do.""",
    "hello": """Hello!|Hello.|Hi!|Hi there.|Hey!|Good morning!|Good day!|Hello there.""",
    "how_are_you": """How are you?|How are you today?|How do you do?|Are you well?|How is it going?|Is all well?
        |Are you fine?|How do you feel?""",
    "thanks": """Thank you!|Thanks.|Thanks!|Thank you very much.|Many thanks.|Thanks a lot!|Great, thank you.
        |Thank you for your help.""",
    "bye": """Goodbye!|Bye.|Bye!|See you.|See you later!|Good night!|Goodbye, nano.|That is all.""",
    "add": """What is {a} plus {b}?|What is {a} + {b}?|{a} + {b} = ?|Add {a} and {b}.|How much is {a} plus {b}?
        |What is the sum of {a} and {b}?|Calculate {a} + {b}.|How much is {a} + {b}?""",
    "subtract": """What is {a} minus {b}?|What is {a} - {b}?|{a} - {b} = ?|How much is {a} minus {b}?
        |Take {b} from {a}.|Calculate {a} - {b}.|How much is {a} - {b}?|What is left of {a} minus {b}?""",
    "greater": """Which is more, {a} or {b}?|Which number is larger, {a} or {b}?|What is more, {a} or {b}?
        |Is {a} or {b} larger?|Name the larger number: {a} or {b}.|Which is larger, {a} or {b}?
        |Which is the larger number, {a} or {b}?|What is the larger of {a} and {b}?""",
    "copy": """Say {word}.|Repeat {word}.|Write {word}.|Please say {word}.|Copy this: {word}.|Write the word {word}.
        |Repeat after me: {word}.|Just say {word}.""",
    "spell": """Spell {word}.|How do you spell {word}?|Spell the word {word}.|Please spell {word}.
        |Can you spell {word}?|Spell {word} letter by letter.|What are the letters of {word}?
        |Name the letters of {word}.""",
    "mix": """What do you get when you mix {a} and {b}?|Mix {a} and {b}.|Which colour do {a} and {b} make?
        |What colour is {a} and {b} mixed?|What color do {a} and {b} make?|{a} and {b} make which colour?
        |Which colour do you get from {a} and {b}?|What do {a} and {b} make?""",
    "corners": """How many corners has {a_shape}?|How many corners does {a_shape} have?
        |Count the corners of {a_shape}.|What is the number of corners of {a_shape}?
        |How many corners are on {a_shape}?|Tell me how many corners {a_shape} has.|{a_shape} has how many corners?
        |How many corners do you find on {a_shape}?""",
    "no_picture": """What is in the picture?|Describe the picture.|Look at this picture.|Can you see this?
        |Here is my picture.|What do you think of my picture?|Can you see the picture?|Do you see the image?""",
    "beyond": """What is the capital of France?|Who is the president?|What is the weather today?|What time is it?
        |Tell me a joke.|Write a poem.|What is the meaning of life?|Write some code for me.|How far is the moon?
        |Who won the game?|Translate this into German.|Can you make a picture?|What did you do yesterday?
        |How old are you?""",
}

_PHOTOGRAPHS = {
    "photograph": """What is in this photo?|Describe this photo.|Who is in this photo?|What animal is this?
        |What is this person doing?|Where was this taken?|What is the weather like?|Describe the scene.
        |Is this a dog or a cat?|What kind of food is this?|What is in the background?|Is it day or night?
        |How many people are there?|Is there a person?|What brand is the car?|What time of day is it?""",
}

PHRASES: dict[str, str] = {
    **_PICTURES,
    **_READING,
    **_CHARTS,
    **_DOCUMENTS,
    **_PAIRS,
    **_VIDEOS,
    **_TEXT,
    **_PHOTOGRAPHS,
}
